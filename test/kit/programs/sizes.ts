/**
 * A client of traffic-server.ts for large figures: `node sizes.ts bulk HOST:PORT BYTES` sends so many bytes through one connection, and
 * takes as many; `node sizes.ts row HOST:PORT COUNT` makes so many HTTP connections one after the other. Prints what it found as JSON.
 */
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { text } from 'node:stream/consumers';
import { exchangeBulk } from './bulk-exchange.ts';

const [what = '', target = '', size = ''] = process.argv.slice(2);
const [host = '', port = ''] = target.split(':');
const start = performance.now();
const found = what === 'bulk' ? await bulk(Number(size)) : await inARow(Number(size));
console.log(JSON.stringify({ ...found, seconds: (performance.now() - start) / 1000 }));
process.exit(0);

async function bulk(bytes: number): Promise<object> {
  const socket = net.connect({ host, port: Number(port) });
  await once(socket, 'connect');
  return await exchangeBulk(socket, { bytes });
}

async function inARow(count: number): Promise<object> {
  let answered = 0;
  const errors: string[] = [];
  let slowestMs = 0;
  for (let turn = 0; turn < count; turn += 1) {
    const begun = performance.now();
    try {
      await call();
      answered += 1;
    } catch (error) {
      if (errors.length < 20) errors.push(String(error));
    }
    slowestMs = Math.max(slowestMs, performance.now() - begun);
  }
  return { answered, failed: count - answered, errors, slowestMs: Math.round(slowestMs) };
}

async function call(): Promise<void> {
  const request = http.get({ host, port, agent: false, timeout: 10_000, headers: { connection: 'close' } });
  request.once('timeout', () => request.destroy(new Error('no answer within 10 s')));
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  await text(response);
}
