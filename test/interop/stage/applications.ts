import http from 'node:http';
import http2 from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { Field } from '../case.ts';
import { answer, answerFields, type Reply } from './answer.ts';
import { type Entry, fieldsOf, type Journal } from './journal.ts';
import { CASE_HEADER, RAW_ANSWERS, SCRIPT_HEADER, stepsOf } from './script.ts';

/** An application of a pod. */
export interface Application {
  /** Service that it stands behind. */
  readonly app: string;
  readonly ip: string;
  readonly port: number;
  readonly serve: 'http1' | 'http2';
}

/** Starts it; it runs until the process ends. */
export async function startApplication(application: Application, journal: Journal): Promise<void> {
  const server =
    application.serve === 'http1' ? http1Server(application, journal) : http2Server(application, journal);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ host: application.ip, port: application.port, backlog: 1024 }, resolve);
  await promise;
  const { port } = server.address() as AddressInfo;
  if (port !== application.port) throw new Error(`${application.app} listens on ${port}`);
}

/** Reads whatever a proxy lets through: what is let through is compared, not judged here. */
const LENIENT: http.ServerOptions = {
  insecureHTTPParser: true,
  requireHostHeader: false,
  maxHeaderSize: 1 << 20,
  keepAliveTimeout: 600_000,
};

function http1Server(application: Application, journal: Journal): http.Server {
  const serve = (incoming: http.IncomingMessage, response: http.ServerResponse): void => {
    const { headers, url = '', method = '' } = incoming;
    const entry = begin(application, journal, {
      httpVersion: incoming.httpVersion,
      method,
      path: url,
      headers: fieldsOf(incoming.rawHeaders),
    });
    response.on('error', () => undefined);
    incoming.on('error', () => undefined);
    incoming.on('data', entry.body);
    incoming.on('end', () => {
      entry.end(fieldsOf(incoming.rawTrailers));
      const isGrpc = `${headers['content-type']}`.startsWith('application/grpc');
      void reply(application, http1Reply(response, method === 'HEAD', isGrpc), entry, headers[SCRIPT_HEADER]);
    });
  };
  const server = http.createServer(LENIENT, serve);
  server.on('checkContinue', (incoming, response) => {
    response.writeContinue();
    serve(incoming, response);
  });
  server.on('upgrade', (incoming: http.IncomingMessage, socket: Socket, head: Buffer) => {
    const entry = begin(application, journal, {
      httpVersion: incoming.httpVersion,
      method: incoming.method ?? '',
      path: incoming.url ?? '',
      headers: fieldsOf(incoming.rawHeaders),
    });
    entry.end([]);
    upgrade(application, socket, head, `${incoming.headers['upgrade']}`, incoming.headers[SCRIPT_HEADER]);
  });
  return server;
}

/** Agrees, and echoes in capitals; or answers as it is told. */
function upgrade(
  { app, ip, port }: Application,
  socket: Socket,
  head: Buffer,
  protocol: string,
  script: string | string[] | undefined,
): void {
  socket.on('error', () => socket.destroy());
  if (script !== undefined) {
    socket.end(
      `HTTP/1.1 ${String(script)} No\r\nx-upstream: ${app}\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno`,
    );
    return;
  }
  const fields = answerFields(app, `${ip}:${port}`)
    .filter(([name]) => name !== 'content-type')
    .map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nupgrade: ${protocol}\r\nconnection: Upgrade\r\n${fields.join('')}\r\n`,
  );
  const echo = (chunk: Buffer): void => {
    const text = chunk.toString('latin1');
    socket.write(text.toUpperCase());
    if (text.includes('bye')) socket.end();
  };
  if (head.length > 0) echo(head);
  socket.on('data', echo);
}

function http2Server(application: Application, journal: Journal): http2.Http2Server {
  const server = http2.createServer({ settings: { enableConnectProtocol: true } });
  server.on('sessionError', () => undefined);
  server.on('stream', (opened, headers, _flags, rawHeaders: string[]) => {
    const stream = opened as http2.ServerHttp2Stream;
    const entry = begin(application, journal, {
      httpVersion: '2.0',
      method: `${headers[':method']}`,
      path: `${headers[':path']}`,
      headers: fieldsOf(rawHeaders)
        .filter(([name]) => !name.startsWith(':'))
        .concat([['host', `${headers[':authority']}`]]),
    });
    let trailers: readonly Field[] = [];
    stream.on('error', () => undefined);
    stream.on('data', entry.body);
    stream.on('trailers', (_trailers, _trailerFlags, raw?: string[]) => {
      trailers = fieldsOf(raw ?? []);
    });
    stream.on('end', () => {
      entry.end(trailers);
      const isGrpc = `${headers['content-type']}`.startsWith('application/grpc');
      const isHead = headers[':method'] === 'HEAD';
      void reply(application, http2Reply(stream, isHead, isGrpc), entry, headers[SCRIPT_HEADER]);
    });
  });
  return server;
}

function begin(
  { app, ip, port }: Application,
  journal: Journal,
  head: {
    readonly httpVersion: string;
    readonly method: string;
    readonly path: string;
    readonly headers: readonly Field[];
  },
): Entry {
  const id = head.headers.find(([name]) => name === CASE_HEADER)?.[1] ?? 'nobody';
  return journal.begin(id, { app, endpoint: `${ip}:${port}`, ...head });
}

async function reply(
  { app, ip, port }: Application,
  to: Reply,
  entry: Entry,
  script: string | string[] | undefined,
): Promise<void> {
  const steps = stepsOf(script === undefined ? undefined : String(script), entry.attempt);
  await answer(to, app, `${ip}:${port}`, steps);
}

function http1Reply(response: http.ServerResponse, isHead: boolean, isGrpc: boolean): Reply {
  const socket = response.socket;
  return {
    isHead,
    isGrpc,
    isGone: () => response.destroyed,
    head: (status, fields, length) => {
      const own = length === undefined ? fields : [...fields, ['content-length', `${length}`] as const];
      response.writeHead(status, own.flat());
      response.flushHeaders();
    },
    write: (text) => void response.write(text, 'latin1'),
    end: (trailers) => {
      if (trailers.length > 0)
        response.addTrailers(trailers.map(([name, value]) => [name, value] as [string, string]));
      response.end();
    },
    inform: () => response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' }),
    reset: () => void socket?.resetAndDestroy(),
    close: () => void socket?.end(),
    refuse: () => void socket?.resetAndDestroy(),
    raw: (name) => void socket?.end(RAW_ANSWERS.get(name) ?? '', 'latin1'),
  };
}

function http2Reply(stream: http2.ServerHttp2Stream, isHead: boolean, isGrpc: boolean): Reply {
  let trailers: readonly Field[] = [];
  stream.on('wantTrailers', () => stream.sendTrailers(Object.fromEntries(trailers)));
  return {
    isHead,
    isGrpc,
    isGone: () => stream.destroyed,
    head: (status, fields, length) => {
      const all: Record<string, string | string[]> = {};
      for (const [name, value] of fields) {
        const known = all[name];
        all[name] = known === undefined ? value : [...[known].flat(), value];
      }
      const own = length === undefined ? {} : { 'content-length': `${length}` };
      stream.respond({ ':status': status, ...all, ...own }, { waitForTrailers: true });
    },
    write: (text) => void stream.write(text, 'latin1'),
    end: (fields) => {
      trailers = fields;
      stream.end();
    },
    inform: () => stream.additionalHeaders({ ':status': 103, link: '</style.css>; rel=preload; as=style' }),
    reset: () => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR),
    close: () => void stream.session?.destroy(),
    refuse: () => stream.close(http2.constants.NGHTTP2_REFUSED_STREAM),
    raw: () => stream.close(http2.constants.NGHTTP2_PROTOCOL_ERROR),
  };
}
