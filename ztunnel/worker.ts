import { parentPort, workerData } from 'node:worker_threads';
import { warmThreadPool } from './capture/in-pod-sockets.ts';
import { Carrier } from './carrier.ts';
import { shareMemoryBudget } from './hbone/memory-budget.ts';
import type { ToWorker, WorkerConfig } from './worker-messages.ts';

/** A byte worker: the thread that carries bytes. Started by `byte-worker.ts`, told what to do by messages. */

const port = parentPort;
if (port === null) throw new TypeError('worker.ts runs in a worker thread only');
await warmThreadPool();
const config = workerData as WorkerConfig;
if (config.memory !== undefined) shareMemoryBudget(config.memory, config.index);
const carrier = new Carrier({
  config,
  send: (message) => port.postMessage(message),
});
// The thread has crashed: what is no handle of its event loop's would stay open as long as the process.
process.once('exit', () => carrier.closeMaps());
port.on('message', (message: ToWorker) => {
  if ('entrusted' in message) port.postMessage({ kind: 'has', entrusted: message.entrusted });
  // Whatever a request meets becomes its answer; an error here is ours, and ends the thread.
  carrier.handle(message).catch((error: unknown) => {
    throw error;
  });
});
port.postMessage({ kind: 'ready' });
