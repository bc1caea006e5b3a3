/**
 * A process that gives up one connection and dies before it says that it has: `node retiring.ts PORT SOCKET`; with `keep` after that,
 * it goes on with the connection itself before it dies. Whoever connects to the
 * port of 127.0.0.1 has the connection; whoever asks for connections at the socket is offered it. Prints `ready`, then `detached`.
 */
import { createServer } from 'node:net';
import { parseArgs } from 'node:util';
import { socketCookie } from '#ztunnel/capture/tcp-socket.ts';
import { duplicate } from '#ztunnel/hand-over/descriptors.ts';
import { handOverUpgrade } from '#ztunnel/hand-over/routes.ts';
import { SYSTEM } from '#ztunnel/hand-over/system.ts';
import { SocketLeg } from '#ztunnel/hbone/socket-leg.ts';
import { listenHttp } from '#ztunnel/http-listener.ts';

const [port = '', path = '', keep] = parseArgs({ allowPositionals: true }).positionals;
const peer = { address: '10.0.0.1:1' };
let offer: object | undefined;
let offered = -1;

createServer({ allowHalfOpen: true }, (socket) => {
  const leg = new SocketLeg(socket);
  const ignore = (): void => undefined;
  leg.start({ onData: ignore, onEnd: ignore, onDrain: ignore, onFinish: ignore, onAbort: ignore });
  const { descriptor } = leg;
  if (typeof descriptor !== 'number') throw new TypeError('the socket has closed');
  const detached = leg.detach(duplicate(descriptor));
  const connection = {
    id: 'c'.repeat(32),
    kind: 'passthrough',
    podUid: 'pod',
    record: {
      facts: { direction: 'outbound', source: peer, destination: peer, security: 'unknown' },
      info: { podUid: 'pod', direction: 'outbound', source: '', destination: '', protocol: 'TCP' },
      openedAtMs: Date.now(),
      told: { received: 0, sent: 0 },
    },
    sockets: [{ ...detached, unsent: Buffer.from('written before').toString('base64') }],
  };
  offered = detached.fd ?? -1;
  SYSTEM.setOffered(offered, true);
  offer = { type: 'offer', number: 1, cookies: [`${socketCookie(offered)}`], connection };
  console.log('detached');
}).listen(Number(port), '127.0.0.1');

const upgrade = handOverUpgrade((socket) => {
  socket.write(`${JSON.stringify({ type: 'hello', pid: process.pid })}\n${JSON.stringify(offer)}\n`);
  // The answer: it is taken, and would now be told that it may go on.
  socket.once('data', () => {
    if (keep !== undefined) SYSTEM.setOffered(offered, false);
    process.kill(process.pid, 'SIGKILL');
  });
});
await listenHttp({ path }, [], () => undefined, [upgrade]);
console.log('ready');
