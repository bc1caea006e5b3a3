/**
 * A client of streams.ts: `node talk.ts websocket|grpc|upload|download|tcp|tls HOST:PORT [NAMES|COUNT]`. Prints what it found as JSON:
 * `websocket` and `grpc` send ten messages, each after the answer to the one before; `upload` and `download` move 64 MiB and compare
 * SHA-256; `tcp` makes so many connections one after the other, and says who answered each; `tls` makes one for each name (by
 * commas), and says whose certificate it met, null where there was none.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import tls from 'node:tls';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { decodeText, encodeText } from './echo-protocol.ts';

const [what = '', at = '', names = ''] = process.argv.slice(2);
const [host = '', port = ''] = at.split(':');
const MEBIBYTES = 64;
const programs: Readonly<Record<string, () => Promise<unknown>>> = {
  websocket,
  grpc,
  upload,
  download,
  tcp,
  tls: byName,
};
console.log(JSON.stringify(await programs[what]?.()));
process.exit(0);

async function websocket(): Promise<unknown> {
  const request = http.request(`http://${at}/`, { headers: { connection: 'Upgrade', upgrade: 'websocket' } });
  request.end();
  const [response, socket] = (await once(request, 'upgrade')) as [
    http.IncomingMessage,
    import('node:net').Socket,
  ];
  const answers: string[] = [];
  for (let turn = 0; turn < 10; turn += 1) {
    socket.write(`message ${turn}`);
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    answers.push(chunk.toString());
  }
  socket.end();
  await once(socket, 'end');
  return { status: response.statusCode, answers };
}

async function grpc(): Promise<unknown> {
  const client = new Client(at, credentials.createInsecure());
  const call = client.makeBidiStreamRequest('/echo.Echo/Talk', encodeText, decodeText, new Metadata());
  const answers: string[] = [];
  for (let turn = 0; turn < 10; turn += 1) {
    call.write(`message ${turn}`);
    const [text] = (await once(call, 'data')) as [string];
    answers.push(text);
  }
  call.end();
  const [status] = (await once(call, 'status')) as [{ readonly code: number }];
  return { status: status.code, answers };
}

async function upload(): Promise<unknown> {
  const hash = createHash('sha256');
  const request = http.request(`http://${at}/`, { method: 'PUT' });
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>;
  for (let sent = 0; sent < MEBIBYTES; sent += 1) {
    const chunk = Buffer.alloc(1024 * 1024, `${sent};`);
    hash.update(chunk);
    if (!request.write(chunk)) await once(request, 'drain');
  }
  request.end();
  const [response] = await answered;
  const body = JSON.parse(Buffer.concat(await response.toArray()).toString()) as {
    bytes: number;
    sha256: string;
  };
  return { bytes: body.bytes, isSame: body.sha256 === hash.digest('hex') };
}

async function download(): Promise<unknown> {
  const request = http.get(`http://${at}/big/${MEBIBYTES}`, { headers: { te: 'trailers' } });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { bytes, isSame: response.trailers['x-sha256'] === hash.digest('hex') };
}

/** The far end speaks first; then the end of what is sent is answered by the end of what comes. */
async function tcp(): Promise<unknown> {
  const answers: string[] = [];
  for (let turn = 0; turn < Number(names); turn += 1) {
    const socket = net.connect({ host, port: Number(port), allowHalfOpen: true });
    const [greeting] = (await once(socket, 'data')) as [Buffer];
    socket.end('hello');
    const rest = Buffer.concat(await socket.toArray()).toString();
    answers.push(`${greeting.toString()}${rest}`);
  }
  return answers;
}

async function byName(): Promise<unknown> {
  const met: (string | null)[] = [];
  for (const servername of names.split(',')) met.push(await subjectMet(servername));
  return met;
}

function subjectMet(servername: string): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = tls.connect({ host, port: Number(port), servername, rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().subjectaltname ?? '');
      socket.destroy();
    });
    socket.on('error', () => resolve(null));
    socket.on('close', () => resolve(null));
  });
}
