import { type HttpAnswer, type HttpRoute, jsonAnswer, textAnswer } from '#ztunnel/http-listener.ts';
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
    get('/config_dump', async () => jsonAnswer(200, await view.configDump())),
    get('/clusters', () => jsonAnswer(200, view.clusters())),
    get('/certs', () => jsonAnswer(200, view.certificates())),
    get('/splits', () => jsonAnswer(200, { splits: view.splits() })),
    get('/status', () => jsonAnswer(200, view.status())),
    get('/logging', () => textAnswer(200, `current log level is ${view.logLevel()}\n`)),
  ];
  return [get('/', () => index(routes)), ...routes];
}

/** Port 15020. */
export function metricsRoutes(view: AdminView): readonly HttpRoute[] {
  const scrape = async (): Promise<HttpAnswer> => {
    const { text, contentType } = view.metrics;
    return { status: 200, contentType, body: await text() };
  };
  return [get('/metrics', scrape), get('/stats/prometheus', scrape)];
}

/** Port 15021. */
export function readinessRoutes(view: AdminView): readonly HttpRoute[] {
  return [
    get('/healthz/ready', () => {
      const pending = view.pending();
      if (pending.length === 0) return textAnswer(200, 'ready\n');
      return textAnswer(503, `not ready, pending: ${pending.join(', ')}\n`);
    }),
  ];
}

/** The Unix socket, which only its owner can open. */
export function socketRoutes(view: AdminView): readonly HttpRoute[] {
  return [...adminRoutes(view), ...metricsRoutes(view), ...readinessRoutes(view)];
}

function get(path: string, answer: HttpRoute['answer']): HttpRoute {
  return { method: 'GET', path, answer };
}

function index(routes: readonly HttpRoute[]): HttpAnswer {
  const items = routes.map(({ path }) => `<li><a href="${path}">${path}</a></li>`).join('');
  return {
    status: 200,
    contentType: 'text/html; charset=utf-8',
    body: `<!doctype html><title>waypoint</title><ul>${items}</ul>\n`,
  };
}
