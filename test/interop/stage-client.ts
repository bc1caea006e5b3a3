import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import readline from 'node:readline';
import type { Netns } from '#test/kit/netns.ts';
import type { Observation } from './case.ts';
import type { Order, Report, Setting } from './stage/orders.ts';

/** The process of applications and callers. Disposing of it ends it. */
export interface Stage extends Disposable {
  /** Sends a request; what came of it. Rejects when it could not be sent, or when what came back is no HTTP. */
  readonly ask: (order: Order) => Promise<Observation>;
}

const PROGRAM = join(import.meta.dirname, 'stage/stage.ts');

/** Starts it in the namespace; resolves when every application listens. */
export async function openStage(netns: Netns, logFile: string, setting: Setting): Promise<Stage> {
  const log = openSync(logFile, 'a');
  const child = netns.spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', log] });
  closeSync(log);
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new TypeError('the stage has no pipes');
  const waiting = new Map<string, PromiseWithResolvers<Observation>>();
  const ready = Promise.withResolvers<void>();
  child.once('exit', (code) => {
    const error = new Error(`the stage ended with ${code}; see ${logFile}`);
    ready.reject(error);
    for (const { reject } of waiting.values()) reject(error);
  });
  stdin.on('error', () => undefined); // its exit tells
  readline.createInterface({ input: stdout }).on('line', (line) => {
    const report = JSON.parse(line) as Report;
    if (report.id === 'ready') return ready.resolve();
    const order = waiting.get(report.id);
    waiting.delete(report.id);
    if ('observation' in report) order?.resolve(report.observation);
    else if ('error' in report) order?.reject(new Error(report.error));
  });
  stdin.write(`${JSON.stringify(setting)}\n`);
  await ready.promise;
  return {
    ask: (order) => {
      const pending = Promise.withResolvers<Observation>();
      waiting.set(order.id, pending);
      stdin.write(`${JSON.stringify(order)}\n`);
      return pending.promise;
    },
    [Symbol.dispose]: () => void child.kill('SIGKILL'),
  };
}
