/**
 * A workload's server: `node server.ts NAME [HTTP_PORT] [TCP_PORT]`.
 * HTTP answers `NAME` and the caller's address as JSON; `/bytes/N` sends N bytes; `/slow/MS` answers after MS milliseconds.
 * TCP echoes, keeps the other direction open after a FIN, and resets a connection that sends a line `reset`.
 */
import http from 'node:http';
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const [name = 'server', httpPort = '8080', tcpPort = '9000'] = process.argv.slice(2);

const server = http.createServer(async (request, response) => {
  const [, bytes] = /^\/bytes\/(\d+)$/.exec(request.url ?? '') ?? [];
  const [, slowMs] = /^\/slow\/(\d+)$/.exec(request.url ?? '') ?? [];
  if (slowMs !== undefined) await delay(Number(slowMs));
  if (bytes !== undefined) return response.end(Buffer.alloc(Number(bytes), 'x'));
  const { remoteAddress, remotePort } = request.socket;
  return response.end(`${JSON.stringify({ name, remoteAddress, remotePort, headers: request.headers })}\n`);
});
server.keepAliveTimeout = 600_000;
server.listen(Number(httpPort), '::');

net
  .createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk) => {
      if (chunk.toString() === 'reset\n') socket.resetAndDestroy();
    });
    socket.pipe(socket);
  })
  .listen(Number(tcpPort), '::');
