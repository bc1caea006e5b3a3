import type { HttpAnswer, HttpRoute } from './http-listener.ts';

/** Something that is only looked at. */
export function getRoute(path: string, answer: HttpRoute['answer']): HttpRoute {
  return { method: 'GET', path, answer };
}

/** A page at `/` that links the routes. */
export function indexRoute(title: string, routes: readonly HttpRoute[]): HttpRoute {
  const items = routes.map(({ path }) => `<li><a href="${path}">${path}</a></li>`).join('');
  return getRoute('/', () => ({
    status: 200,
    contentType: 'text/html; charset=utf-8',
    body: `<!doctype html><title>${title}</title><ul>${items}</ul>\n`,
  }));
}

/** Metrics under the two paths that scrapers know. */
export function metricsRoutes(metrics: {
  readonly text: () => Promise<string>;
  readonly contentType: string;
}): readonly HttpRoute[] {
  const scrape = async (): Promise<HttpAnswer> => ({
    status: 200,
    contentType: metrics.contentType,
    body: await metrics.text(),
  });
  return [getRoute('/metrics', scrape), getRoute('/stats/prometheus', scrape)];
}
