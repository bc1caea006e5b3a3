/**
 * Applications and callers in one process: `node stage.ts`. The first line of standard input is a {@link Setting}, each other
 * an {@link Order}; standard output has a {@link Report} a line.
 */
import readline from 'node:readline';
import { eventually } from '#test/kit/eventually.ts';
import type { Field } from '../case.ts';
import { startApplication } from './applications.ts';
import { createDoors, type Door } from './doors.ts';
import { converse, type Reception, requestBytes } from './http1-client.ts';
import { askHttp2 } from './http2-client.ts';
import { createJournal, isMirror, type Journal } from './journal.ts';
import type { Count, Order, Report, Setting } from './orders.ts';
import { askRawStream } from './raw-stream.ts';
import { CASE_HEADER, SCRIPT_HEADER } from './script.ts';

type OpenDoor = (door: Door) => Promise<import('node:stream').Duplex>;

const MIRROR_PATIENCE_MS = 3000;

function say(report: Report): void {
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

async function carryOut(order: Order, open: OpenDoor, journal: Journal): Promise<void> {
  const { id } = order;
  try {
    const connection = await open(order.door);
    journal.open(id);
    const startedAt = performance.now();
    const reception = await send(order, connection);
    const ms = Math.round(performance.now() - startedAt);
    // What the proxy refused, did not find or sent elsewhere was not mirrored.
    const mayBeMirrored =
      reception.status >= 500 || reception.headers.some(([name]) => name === 'x-upstream');
    if (order.mirrors > 0 && mayBeMirrored) await mirrored(journal, order).catch(() => undefined); // what is missing, is not there
    say({ id, observation: { ...reception, ms, seen: journal.seen(id) } });
  } catch (error) {
    say({ id, error: String(error) });
  } finally {
    journal.close(id);
  }
}

function send(
  { id, host, send, script, patienceMs }: Order,
  connection: Awaited<ReturnType<OpenDoor>>,
): Promise<Reception> {
  const extra: Field[] = [[CASE_HEADER, id]];
  if (script !== undefined) extra.push([SCRIPT_HEADER, script]);
  if ('fields' in send) return askRawStream(connection, send, extra, patienceMs);
  const lines = extra.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  if ('raw' in send)
    return converse(connection, { ...send, raw: send.raw.replaceAll('%CASE%\r\n', lines) }, patienceMs);
  if (send.protocol === 'http2') return askHttp2(connection, send, host, extra, patienceMs);
  return converse(connection, requestBytes(send, host, lines), patienceMs);
}

function mirrored(journal: Journal, { id, mirrors }: Order): Promise<true> {
  const has = (): boolean =>
    journal.seen(id).filter(({ app, complete }) => isMirror(app) && complete).length >= mirrors;
  return eventually('mirrors', () => has() || undefined, MIRROR_PATIENCE_MS);
}

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const first = await lines.next();
const setting = JSON.parse(String(first.value)) as Setting;
const journal = createJournal();
await Promise.all(setting.applications.map((application) => startApplication(application, journal)));
const open = createDoors(setting.credentials);
say({ id: 'ready' });
for await (const line of { [Symbol.asyncIterator]: () => lines }) {
  const order = JSON.parse(line) as Order | Count;
  if ('prefix' in order) say({ id: order.id, count: journal.mirrored(order.prefix, order.path) });
  else void carryOut(order, open, journal);
}
process.exit(0);
