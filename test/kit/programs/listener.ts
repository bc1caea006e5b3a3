import { writeSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { setInterval } from 'node:timers';
import { listenInNamespace } from '#ztunnel/capture/in-pod-sockets.ts';
import { describeSocket } from '#ztunnel/hand-over/descriptors.ts';

/**
 * A process whose listening socket is shared. It prints `{"pid":…,"port":…,"fd":…}`, answers each connection
 * with `owner`, stops to listen at SIGUSR2 and prints then, every 100 ms, how much processor time it has used since, in
 * microseconds; with the argument `idle` it does not accept at all.
 */
const fd = listenInNamespace(undefined, { ip: '127.0.0.1', port: 0, transparent: false, backlog: 64 });
const server: Server = createServer((socket) => socket.end('owner'));
if (process.argv[2] !== 'idle') server.listen({ fd });
process.once('SIGUSR2', () => {
  server.close();
  const before = process.cpuUsage();
  setInterval(() => {
    const { user, system } = process.cpuUsage(before);
    print({ usedMicroseconds: user + system });
  }, 100);
});
setInterval(() => undefined, 60_000);
print({ pid: process.pid, port: describeSocket(fd)?.address.port, fd });

function print(value: object): void {
  writeSync(1, `${JSON.stringify(value)}\n`);
}
