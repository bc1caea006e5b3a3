import { type HttpRoute, jsonAnswer, textAnswer } from '#ztunnel/http-listener.ts';
import { getRoute, indexRoute, metricsRoutes } from '#ztunnel/operator-routes.ts';
import type { SplitReport } from './route-counts.ts';

/** What operators are shown. */
export interface AdminView {
  /** Empty: ready. */
  readonly pending: () => readonly string[];
  readonly configDump: () => Promise<object>;
  readonly clusters: () => object;
  readonly certificates: () => object;
  readonly logLevel: () => string;
  readonly splits: () => readonly SplitReport[];
  readonly status: () => object;
  readonly metrics: { readonly text: () => Promise<string>; readonly contentType: string };
}

/** `127.0.0.1:15000`: nothing here changes anything. */
export function adminRoutes(view: AdminView): readonly HttpRoute[] {
  const routes: readonly HttpRoute[] = [
    getRoute('/config_dump', async () => jsonAnswer(200, await view.configDump())),
    getRoute('/clusters', () => jsonAnswer(200, view.clusters())),
    getRoute('/certs', () => jsonAnswer(200, view.certificates())),
    getRoute('/splits', () => jsonAnswer(200, { splits: view.splits() })),
    getRoute('/status', () => jsonAnswer(200, view.status())),
    getRoute('/logging', () => textAnswer(200, `current log level is ${view.logLevel()}\n`)),
  ];
  return [indexRoute('waypoint', routes), ...routes];
}

/** Port 15021. */
export function readinessRoutes(view: AdminView): readonly HttpRoute[] {
  return [
    getRoute('/healthz/ready', () => {
      const pending = view.pending();
      if (pending.length === 0) return textAnswer(200, 'ready\n');
      return textAnswer(503, `not ready, pending: ${pending.join(', ')}\n`);
    }),
  ];
}

/** The Unix socket, which only its owner can open. */
export function socketRoutes(view: AdminView): readonly HttpRoute[] {
  return [...adminRoutes(view), ...metricsRoutes(view.metrics), ...readinessRoutes(view)];
}
