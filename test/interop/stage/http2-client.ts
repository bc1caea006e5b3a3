import http2 from 'node:http2';
import type { Duplex } from 'node:stream';
import type { Field, Request } from '../case.ts';
import type { Reception } from './http1-client.ts';
import { fieldsOf } from './journal.ts';

/** Sends one request of HTTP/2, with prior knowledge, over a connection of its own. Closes it. */
export async function askHttp2(
  connection: Duplex,
  request: Request,
  host: string,
  extra: readonly Field[],
  patienceMs: number,
): Promise<Reception> {
  const session = http2.connect('http://proxy', { createConnection: () => connection });
  const { promise, resolve } = Promise.withResolvers<Reception>();
  const stream = session.request(headersOf(request, host, extra), {
    endStream: false,
    waitForTrailers: request.trailers !== undefined,
  });
  const got = {
    status: 0,
    headers: [] as readonly Field[],
    body: '',
    trailers: [] as readonly Field[],
    earlier: [] as number[],
  };
  const done = (end: Reception['end']): void => resolve({ ...got, end });
  const broken = (): void => done(got.status === 0 ? 'none' : 'incomplete');
  const timer = setTimeout(done, patienceMs, 'slow');
  session.on('error', broken);
  session.on('close', broken);
  stream.on('error', broken);
  stream.on('aborted', broken);
  stream.on('headers', (headers) => got.earlier.push(Number(headers[':status'])));
  stream.on('response', (headers, _flags, raw: string[]) => {
    got.status = Number(headers[':status']);
    got.headers = fieldsOf(raw).filter(([name]) => !name.startsWith(':'));
  });
  stream.on('trailers', (_headers, _flags, raw?: string[]) => {
    got.trailers = fieldsOf(raw ?? []);
  });
  stream.on('data', (chunk: Buffer) => {
    got.body += chunk.toString('latin1');
  });
  stream.on('end', () => {
    if (stream.rstCode === http2.constants.NGHTTP2_NO_ERROR) done(got.status === 0 ? 'none' : 'complete');
  });
  stream.on('wantTrailers', () => stream.sendTrailers(Object.fromEntries(request.trailers ?? [])));
  stream.end(request.body ?? 'x'.repeat(request.bodyBytes ?? 0), 'latin1');
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    session.destroy();
    connection.destroy();
  }
}

function headersOf(request: Request, host: string, extra: readonly Field[]): http2.OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = {
    ':method': request.method,
    ':path': request.path,
    ':scheme': 'http',
    ':authority': request.host ?? host,
  };
  for (const [name, value] of [...request.headers, ...extra]) {
    const known = headers[name];
    headers[name] = known === undefined ? value : [...[known].flat(), value];
  }
  return headers;
}
