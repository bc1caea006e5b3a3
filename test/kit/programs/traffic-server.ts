/**
 * A workload's server for every kind of traffic.ts: `node traffic-server.ts NAME`.
 * 8080: HTTP that answers NAME, and takes a change to `websocket` and then echoes. 9000: TCP that echoes, keeping the other direction
 * open after a FIN. 9100: a bulk exchange, see bulk-exchange.ts. 7070: gRPC, `echo.Echo/Talk`, each message comes back at once.
 */
import http from 'node:http';
import net from 'node:net';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { answerBulk } from './bulk-exchange.ts';
import { decodeText, encodeText } from './echo-protocol.ts';

const [name = 'server'] = process.argv.slice(2);

const server = http.createServer((request, response) => {
  request.resume();
  response.setHeader('x-answered-by', name);
  response.end(name);
});
server.keepAliveTimeout = 3_600_000;
server.on('upgrade', (_request, socket) => {
  socket.on('error', () => socket.destroy());
  socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
  socket.pipe(socket);
});
server.listen({ port: 8080, host: '::', backlog: 4096 });

net
  .createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  })
  .listen({ port: 9000, host: '::', backlog: 4096 });

net
  .createServer({ allowHalfOpen: true }, (socket) => {
    answerBulk(socket).catch(() => socket.destroy());
  })
  .listen(9100, '::');

const grpc = new Server();
const method = {
  path: '/echo.Echo/Talk',
  requestStream: true,
  responseStream: true,
  requestSerialize: encodeText,
  requestDeserialize: decodeText,
  responseSerialize: encodeText,
  responseDeserialize: decodeText,
};
grpc.addService(
  { Talk: method },
  {
    Talk: (call: ServerDuplexStream<string, string>) => {
      call.on('data', (text: string) => call.write(text));
      call.on('end', () => call.end());
      call.on('error', () => call.destroy());
    },
  },
);
grpc.bindAsync('[::]:7070', ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
});
