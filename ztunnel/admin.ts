import { type Resource, resourceName, resourceType } from '#api/resource.ts';
import { resourceToJson } from '#api/resource-json.ts';
import { type HttpAnswer, type HttpRoute, jsonAnswer, textAnswer } from './http-listener.ts';
import { getRoute, indexRoute, metricsRoutes } from './operator-routes.ts';
import { type ReadinessFacts, readinessAnswer } from './readiness.ts';
import type { ShortageState } from './shortages.ts';

/** What the read-only endpoints show. */
export interface AdminView {
  /** What the node believes, as it was told. */
  readonly resources: () => readonly Resource[];
  readonly configDump: () => Promise<object>;
  readonly logLevel: () => string;
  /** What was refused lately for want of something. */
  readonly shortages: () => readonly ShortageState[];
  readonly readiness: () => ReadinessFacts;
  readonly metrics: { readonly text: () => Promise<string>; readonly contentType: string };
}

/** What the orders on the Unix socket do. */
export interface AdminOrders {
  /** Ends gracefully; again: nothing. Answers with how long connections may go on, in milliseconds. */
  readonly drain: () => number;
  /** False: there is no such level. */
  readonly setLogLevel: (level: string) => boolean;
  readonly reopenLogs: () => void;
}

/** `127.0.0.1:15000`: nothing here changes anything, as every process of the node can reach it. */
export function adminRoutes(view: AdminView): readonly HttpRoute[] {
  const routes: readonly HttpRoute[] = [
    getRoute('/config_dump', async () => jsonAnswer(200, await view.configDump())),
    getRoute('/shortages', () => jsonAnswer(200, view.shortages())),
    getRoute('/logging', () => textAnswer(200, `current log level is ${view.logLevel()}\n`)),
  ];
  return [indexRoute('ztunnel', routes), ...routes];
}

/** Port 15021. */
export function readinessRoutes(view: AdminView): readonly HttpRoute[] {
  return [
    getRoute('/healthz/ready', () => {
      const { status, text } = readinessAnswer(view.readiness());
      return textAnswer(status, text);
    }),
  ];
}

/** The Unix socket, which only its owner can open. */
export function orderRoutes(view: AdminView, orders: AdminOrders): readonly HttpRoute[] {
  const drain = (): HttpAnswer => jsonAnswer(202, { draining: true, deadlineMs: orders.drain() });
  return [
    ...adminRoutes(view),
    getRoute('/resources', () => jsonAnswer(200, { resources: view.resources().map(describeResource) })),
    ...metricsRoutes(view.metrics),
    ...readinessRoutes(view),
    { method: 'POST', path: '/drain', answer: drain },
    { method: 'POST', path: '/quitquitquit', answer: drain },
    { method: 'POST', path: '/logging', answer: (query) => setLogLevel(view, orders, query) },
    { method: 'POST', path: '/reopen-logs', answer: () => reopen(orders) },
  ];
}

/** In the terms of the control plane's own `/resources`; where something is written is not known here. */
function describeResource(resource: Resource): object {
  return {
    type: resourceType(resource),
    name: resourceName(resource),
    resource: resourceToJson(resource),
  };
}

function setLogLevel(view: AdminView, orders: AdminOrders, query: URLSearchParams): HttpAnswer {
  const level = query.get('level');
  if (level !== null && !orders.setLogLevel(level)) {
    return textAnswer(
      400,
      `no such level: ${JSON.stringify(level)}; try error, warn, info, debug or trace\n`,
    );
  }
  return textAnswer(200, `current log level is ${view.logLevel()}\n`);
}

function reopen(orders: AdminOrders): HttpAnswer {
  orders.reopenLogs();
  return textAnswer(200, 'reopened with the next line\n');
}
