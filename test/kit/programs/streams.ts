/**
 * A workload's server of streams, each on a port of its own: `node streams.ts NAME`. 9000 says its name and a blank, then echoes;
 * 9443 speaks TLS, with a certificate for `server-NAME`; 8080 is HTTP that takes a change to `websocket` and then echoes, answers
 * uploads with their SHA-256 and `/big/N` with N MiB and their SHA-256 in a trailer; 7070 is gRPC, a stream both ways in which each
 * message comes back at once.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { openAuthority } from '#certs/authority.ts';
import { decodeText, encodeText } from './echo-protocol.ts';

const [name = 'streams'] = process.argv.slice(2);

net
  .createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.write(`${name} `);
    socket.pipe(socket);
  })
  .listen(9000, '::');

const folder = mkdtempSync(join(tmpdir(), 'streams-'));
const authority = await openAuthority({ directory: join(folder, 'ca'), trustDomain: 'streams' });
const { keyPem, chainPem } = await authority.issueServer({
  dnsNames: [`server-${name}`],
  ips: [],
  ttlMs: 3_600_000,
});
rmSync(folder, { recursive: true });
tls
  .createServer({ key: keyPem, cert: chainPem.join('\n') }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.end(name);
  })
  .listen(9443, '::');

const server = http.createServer((request, response) => {
  const [, mebibytes] = /^\/big\/(\d+)$/.exec(request.url ?? '') ?? [];
  if (mebibytes === undefined) {
    const hash = createHash('sha256');
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    request.on('end', () => response.end(JSON.stringify({ name, bytes, sha256: hash.digest('hex') })));
    return;
  }
  void sendBig(response, Number(mebibytes));
});
server.on('upgrade', (request, socket) => {
  const upgrade = request.headers.upgrade ?? '';
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ${upgrade}\r\n\r\n`);
  socket.on('error', () => socket.destroy());
  socket.pipe(socket);
});
server.listen(8080, '::');

async function sendBig(response: http.ServerResponse, mebibytes: number): Promise<void> {
  const hash = createHash('sha256');
  response.writeHead(200, { trailer: 'x-sha256' });
  for (let sent = 0; sent < mebibytes; sent += 1) {
    const chunk = Buffer.alloc(1024 * 1024, `${sent} of ${mebibytes};`);
    hash.update(chunk);
    if (!response.write(chunk)) await new Promise((resolve) => response.once('drain', resolve));
  }
  response.addTrailers({ 'x-sha256': hash.digest('hex') });
  response.end();
}

const grpc = new Server();
const streaming = {
  path: '/echo.Echo/Talk',
  requestStream: true,
  responseStream: true,
  requestSerialize: encodeText,
  requestDeserialize: decodeText,
  responseSerialize: encodeText,
  responseDeserialize: decodeText,
};
grpc.addService(
  { Talk: streaming },
  {
    Talk: (call: ServerDuplexStream<string, string>) => {
      call.on('data', (text: string) => call.write(`${name}: ${text}`));
      call.on('end', () => call.end());
    },
  },
);
grpc.bindAsync('[::]:7070', ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
});
