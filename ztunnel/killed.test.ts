import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type CarrierProcess, startCarrierProcess } from '#test/kit/carrier-process.ts';
import { eventually } from '#test/kit/eventually.ts';
import { workload } from '#test/kit/resources.ts';

/** What applications see of the end of the process that carries their bytes, and of their own ends while it lives. */

const WEB = '127.0.74.1';
const OUTSIDE = { ip: '127.0.74.99', port: 8080 };
const web = workload({ name: 'web', serviceAccount: 'web', addresses: [WEB] });

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: Server;
let serve: (socket: Socket) => void;
let carrier: CarrierProcess;
let sockets: Socket[];

beforeEach(async () => {
  sockets = [];
  server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    serve(socket);
  });
  server.listen({ host: '0.0.0.0', port: 0, backlog: 4096 });
  await once(server, 'listening');
  const { port } = server.address() as { readonly port: number };
  carrier = await startCarrierProcess({
    ...{ node: 'n1', resources: [web], svids: [], pods: [web] },
    aims: [{ podIp: WEB, to: OUTSIDE }],
    applications: [{ at: OUTSIDE, port }],
  });
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await carrier[Symbol.asyncDispose]();
  server.close();
});

interface Seen {
  bytes: number;
  /** How it ended: a FIN, or the error. */
  end: string | undefined;
}

function watch(socket: Socket): Seen {
  const seen: Seen = { bytes: 0, end: undefined };
  socket.on('data', (bytes) => {
    seen.bytes += bytes.length;
  });
  socket.once('end', () => {
    seen.end ??= 'FIN';
  });
  socket.once('error', (error: Error & { readonly code?: string }) => {
    seen.end ??= error.code;
  });
  return seen;
}

function call(): Socket {
  const socket = connect({ port: carrier.portOf({ ip: WEB, port: 15001 }), host: WEB, allowHalfOpen: true });
  sockets.push(socket);
  return socket;
}

test('what is cut off by a killed process never looks like an end, to neither application', async () => {
  let there: Seen | undefined;
  serve = (socket) => {
    there = watch(socket);
    socket.write('half of an ans');
  };
  const here = watch(call());
  await eventually('half of it', () => here.bytes === 14);
  process.kill(carrier.pid, 'SIGKILL');
  await eventually('the end of both', () => here.end !== undefined && there?.end !== undefined);
  expect([here.end, there?.end]).toEqual(['ECONNRESET', 'ECONNRESET']);
});

test('what waits for its answer when the process is killed sees no empty one', async () => {
  const asked = Promise.withResolvers<void>();
  serve = (socket) => socket.once('data', () => asked.resolve());
  const socket = call();
  const here = watch(socket);
  socket.write('?');
  await asked.promise;
  process.kill(carrier.pid, 'SIGKILL');
  await eventually('its end', () => here.end);
  expect(here.end).toBe('ECONNRESET');
});

test('what had ended stays an end, and the other direction shows that it is cut', async () => {
  let there: Seen | undefined;
  serve = (socket) => {
    there = watch(socket);
    socket.end('a whole answer');
  };
  const socket = call();
  const here = watch(socket);
  socket.write('half of a ques');
  await eventually('a whole answer', () => here.end);
  await eventually('half of a question', () => there?.bytes === 14);
  process.kill(carrier.pid, 'SIGKILL');
  await eventually('the other end', () => there?.end);
  expect([here.bytes, here.end, there?.end]).toEqual([14, 'FIN', 'ECONNRESET']);
});

test('a clean end loses nothing, in whatever order both ends come and however late they are read', async () => {
  serve = (socket) => {
    const answer = Buffer.alloc(randomInt(0, 400_000));
    const seen = watch(socket);
    const question = once(socket, 'data').then(([first]) => (first as Buffer).readUInt32LE());
    void question.then((length) => {
      const isEarly = length % 2 === 0;
      const answerNow = (): void => {
        const head = Buffer.alloc(4);
        head.writeUInt32LE(answer.length);
        socket.write(head);
        socket.end(answer);
      };
      if (isEarly) answerNow();
      socket.once('end', () => {
        if (seen.bytes !== length + 4) socket.resetAndDestroy();
        else if (!isEarly) answerNow();
      });
    });
  };
  const transfer = async (): Promise<void> => {
    const socket = call();
    const [length, chunks] = [randomInt(0, 200_000), [] as Buffer[]];
    const head = Buffer.alloc(4);
    head.writeUInt32LE(length);
    const ended = once(socket, 'end');
    socket.write(head);
    socket.end(Buffer.alloc(length));
    if (randomInt(3) === 0) {
      socket.pause();
      setTimeout(() => socket.resume(), randomInt(50));
    }
    socket.on('data', (bytes: Buffer) => chunks.push(bytes));
    await ended;
    const answer = Buffer.concat(chunks);
    expect(answer.length - 4).toBe(answer.readUInt32LE());
  };
  for (let round = 0; round < 20; round += 1) await Promise.all(Array.from({ length: 50 }, transfer));
});
