import { parentPort, workerData } from 'node:worker_threads';
import type { FromWorker, ToWorker, WorkerConfig } from './worker-messages.ts';

/**
 * A thread that speaks a worker's messages and carries no bytes, for tests. A pod named `refused` cannot be served; one
 * named `busy` keeps its connections until it is cut; forgetting the identity `crash` crashes it, `crash-1` only the
 * second. Asked for connections it tells all that it was told, of offered sockets the ports.
 */
const port = parentPort;
if (port === null) throw new TypeError('not in a worker thread');

const { index } = workerData as WorkerConfig;
const told: string[] = [];
const pods = new Map<string, string>();

function send(message: FromWorker): void {
  port?.postMessage(message);
}

function done(request: number, answer: { readonly error?: string; readonly value?: unknown } = {}): void {
  send({ kind: 'done', request, ...answer });
}

function portsOf({ offered }: Extract<ToWorker, { readonly kind: 'add-pod' }>): readonly number[] {
  return offered?.sockets.map(({ address }) => address.port) ?? [];
}

port.on('message', (message: ToWorker) => {
  switch (message.kind) {
    case 'tables':
      told.push(`tables ${message.update.type.split('.').at(-1)} ${message.update.updated.length}`);
      break;
    case 'svid':
      told.push(`svid ${message.svid.serial}`);
      break;
    case 'revoked':
      told.push(`revoked ${message.list.serials.join(' ')}`);
      break;
    case 'forget-identity':
      if (message.identity === 'crash' || message.identity === `crash-${index}`)
        throw new Error('it fell over');
      told.push(`forget ${message.identity}`);
      break;
    case 'add-pod':
      told.push(['add-pod', message.pod.name, ...portsOf(message)].join(' '));
      pods.set(message.pod.uid, message.pod.name);
      done(
        message.request,
        message.pod.name === 'refused'
          ? { error: 'the port is taken' }
          : { value: { descriptors: [], left: [] } },
      );
      break;
    case 'remove-pod':
      told.push(`remove-pod ${pods.get(message.uid)}${message.cut ? ' cut' : ''}`);
      if (message.cut || pods.get(message.uid) !== 'busy') done(message.request);
      break;
    case 'drain':
      if (![...pods.values()].includes('busy')) done(message.request);
      break;
    case 'list-connections':
      done(message.request, { value: told });
      break;
    case 'parked':
      told.push(`parked ${message.uid} ${message.sockets}`);
      break;
    case 'adopt':
      if (message.entrusted !== undefined) send({ kind: 'has', entrusted: message.entrusted });
      told.push(`adopt ${message.connection.podUid}`);
      break;
    case 'settled':
    case 'claimed':
      throw new TypeError(`it carries nothing: ${message.kind}`);
  }
});
send({ kind: 'ready' });
send({ kind: 'need-svid', identity: `spiffe://cluster.local/ns/default/sa/of-${index}` });
