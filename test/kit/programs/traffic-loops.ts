import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, type ClientDuplexStream, credentials, Metadata } from '@grpc/grpc-js';
import { exchangeBulk, PROGRESS_BYTES } from './bulk-exchange.ts';
import { decodeText, encodeText } from './echo-protocol.ts';
import type { TrafficKind, TrafficLoop } from './traffic-lines.ts';

/** What a loop tells. */
export interface LoopReport {
  /** Aborted when the loop is to end. */
  readonly signal: AbortSignal;
  readonly ok: (answeredBy?: string) => void;
  readonly failed: (what: 'failed' | 'cut', error: unknown) => void;
  /** It waited that long on purpose. */
  readonly waited: (ms: number) => void;
}

type Loop = (loop: TrafficLoop, report: LoopReport) => Promise<void>;

/** No answer within this is a failure. */
const ANSWER_MS = 10_000;
/** After a failure, before the next try. */
const RETRY_MS = 50;

/** One for each kind; resolves when the report's signal is aborted. */
export const LOOPS: Readonly<Record<TrafficKind, Loop>> = {
  new: (loop, report) => repeat(loop, report, async () => void (await request(loop.target, report, false))),
  kept,
  websocket: (loop, report) => overConnections(loop, report, openWebSocket),
  tcp: (loop, report) => overConnections(loop, report, openTcp),
  bulk,
  dns: (loop, report) =>
    repeat(loop, report, async () => {
      await new Resolver({ timeout: 3000, tries: 1 }).resolve4(loop.target);
      report.ok();
    }),
  grpc,
};

/** A loop's step until the end; what it throws is a failure. */
async function repeat(loop: TrafficLoop, report: LoopReport, step: () => Promise<void>): Promise<void> {
  while (!report.signal.aborted) {
    try {
      await step();
      await pause(loop.pauseMs, report);
    } catch (error) {
      if (report.signal.aborted) return;
      report.failed('failed', error);
      await delay(RETRY_MS);
    }
  }
}

async function pause(ms: number, report: LoopReport): Promise<void> {
  const start = performance.now();
  await delay(ms, undefined, { signal: report.signal }).catch(() => undefined);
  report.waited(performance.now() - start);
}

async function request(
  target: string,
  report: LoopReport,
  agent: http.Agent | false,
): Promise<http.IncomingMessage> {
  const call = http.get(`http://${target}/`, { agent, signal: AbortSignal.timeout(ANSWER_MS) });
  const [response] = (await once(call, 'response')) as [http.IncomingMessage];
  const body = await text(response);
  if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}: ${body.slice(0, 100)}`);
  report.ok(String(response.headers['x-answered-by'] ?? ''));
  return response;
}

/** One keep-alive connection. That it is closed by the far end, unless an answer said so before, is a cut. */
async function kept(loop: TrafficLoop, report: LoopReport): Promise<void> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  let announced = false;
  const seen = new WeakSet<net.Socket>();
  agent.on('free', (socket: net.Socket) => {
    if (seen.has(socket)) return;
    seen.add(socket);
    socket.once('close', () => {
      if (!announced && !report.signal.aborted) report.failed('cut', 'the kept connection was closed');
      announced = false;
    });
  });
  await repeat(loop, report, async () => {
    const response = await request(loop.target, report, agent);
    announced = response.headers.connection === 'close';
  });
  agent.destroy();
}

async function openTcp(target: string): Promise<net.Socket> {
  const [host, port] = hostPort(target);
  const socket = net.connect({ host, port, noDelay: true });
  await withinTime(socket, once(socket, 'connect'));
  return socket;
}

async function openWebSocket(target: string): Promise<net.Socket> {
  const headers = { connection: 'Upgrade', upgrade: 'websocket' };
  const call = http.request(`http://${target}/`, { headers, agent: false });
  call.end();
  call.once('response', (response: http.IncomingMessage) =>
    call.destroy(new Error(`status ${response.statusCode} and no change of protocol`)),
  );
  const [, socket] = await withinTime(
    call,
    once(call, 'upgrade') as Promise<[http.IncomingMessage, net.Socket]>,
  );
  return socket;
}

/** A signal would go on to hold for the connection once it is open. */
async function withinTime<T>(
  of: { readonly destroy: (error: Error) => unknown },
  opened: Promise<T>,
): Promise<T> {
  const timer = setTimeout(() => of.destroy(new Error(`not open within ${ANSWER_MS} ms`)), ANSWER_MS);
  try {
    return await opened;
  } finally {
    clearTimeout(timer);
  }
}

/** A message and its echo, again and again, on one connection as long as that lives. */
async function overConnections(
  loop: TrafficLoop,
  report: LoopReport,
  open: (target: string) => Promise<net.Socket>,
): Promise<void> {
  await repeat(loop, report, async () => {
    const socket = await open(loop.target);
    try {
      socket.on('error', () => undefined);
      let message = 0;
      await echo(socket, `${message}`); // the first one is part of connecting
      report.ok();
      const ended = ending(socket);
      while (!report.signal.aborted) {
        message += 1;
        const problem = await Promise.race([ended, talk(socket, `${message}`, loop, report)]);
        if (problem !== undefined) {
          if (!report.signal.aborted) report.failed('cut', problem);
          return;
        }
      }
    } finally {
      socket.destroy();
    }
  });
}

async function talk(
  socket: net.Socket,
  message: string,
  loop: TrafficLoop,
  report: LoopReport,
): Promise<Error | undefined> {
  await pause(loop.pauseMs, report);
  if (report.signal.aborted) return undefined;
  try {
    await echo(socket, message);
  } catch (error) {
    return error as Error;
  }
  report.ok();
  return undefined;
}

function ending(socket: net.Socket): Promise<Error> {
  return new Promise((resolve) => {
    socket.once('error', resolve);
    socket.once('end', () => resolve(new Error('the far end closed the connection')));
    socket.once('close', () => resolve(new Error('the connection was closed')));
  });
}

/** @throws Error when something else comes back, or nothing within the time */
async function echo(socket: net.Socket, message: string): Promise<void> {
  socket.write(`${message}\n`);
  let seen = '';
  const signal = AbortSignal.timeout(ANSWER_MS);
  while (!seen.endsWith('\n')) {
    const [chunk] = (await once(socket, 'data', { signal })) as [Buffer];
    seen += chunk.toString();
  }
  if (seen !== `${message}\n`) throw new Error(`sent ${message}, and ${seen.slice(0, 50).trim()} came back`);
}

async function bulk(loop: TrafficLoop, report: LoopReport): Promise<void> {
  const pieceMs = loop.bytesPerSecond === undefined ? 0 : (PROGRESS_BYTES / loop.bytesPerSecond) * 1000;
  await repeat(loop, report, async () => {
    const socket = await openTcp(loop.target);
    try {
      const { isSame } = await exchangeBulk(socket, {
        bytes: loop.bytes ?? 1,
        bytesPerSecond: loop.bytesPerSecond,
        onProgress: () => {
          report.ok();
          report.waited(pieceMs); // it is meant to take that long
        },
      });
      if (!isSame) report.failed('cut', 'the bytes that came are not those that were sent');
    } catch (error) {
      if (!report.signal.aborted) report.failed('cut', error);
    } finally {
      socket.destroy();
    }
  });
}

const STREAM_MS = 2000;

/** Streams one after the other on one channel, each as long as two seconds. */
async function grpc(loop: TrafficLoop, report: LoopReport): Promise<void> {
  const client = new Client(loop.target, credentials.createInsecure());
  await repeat(loop, report, async () => {
    const deadline = Date.now() + STREAM_MS + ANSWER_MS;
    const call = client.makeBidiStreamRequest('/echo.Echo/Talk', encodeText, decodeText, new Metadata(), {
      deadline,
    });
    await converse(call, loop, report);
  });
  client.close();
}

async function converse(
  call: ClientDuplexStream<string, string>,
  loop: TrafficLoop,
  report: LoopReport,
): Promise<void> {
  const failed = once(call, 'error').then(([error]) => Promise.reject(error as Error));
  failed.catch(() => undefined);
  const until = performance.now() + STREAM_MS;
  for (let message = 0; performance.now() < until && !report.signal.aborted; message += 1) {
    call.write(`${message}`);
    const [answer] = (await Promise.race([once(call, 'data'), failed])) as [string];
    if (answer !== `${message}`) throw new Error(`sent ${message}, and ${answer} came back`);
    report.ok();
    await pause(loop.pauseMs, report);
  }
  call.end();
  await Promise.race([once(call, 'status'), failed]);
}

function hostPort(target: string): readonly [string, number] {
  const colon = target.lastIndexOf(':');
  return [target.slice(0, colon), Number(target.slice(colon + 1))];
}
