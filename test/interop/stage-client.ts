import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import readline from 'node:readline';
import type { Netns } from '#test/kit/netns.ts';
import type { Observation } from './case.ts';
import type { Count, Order, Report, Setting } from './stage/orders.ts';

/** The process of applications and callers. Disposing of it ends it. */
export interface Stage extends Disposable {
  /** Sends a request; what came of it. Rejects when it could not be sent, or when what came back is no HTTP. */
  readonly ask: (order: Order) => Promise<Observation>;
  /** How many mirrored requests of that path came in cases whose names begin so. */
  readonly mirrored: (prefix: string, path: string) => Promise<number>;
}

const PROGRAM = join(import.meta.dirname, 'stage/stage.ts');

/** Starts it in the namespace; resolves when every application listens. */
export async function openStage(netns: Netns, logFile: string, setting: Setting): Promise<Stage> {
  const log = openSync(logFile, 'a');
  const child = netns.spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', log] });
  closeSync(log);
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new TypeError('the stage has no pipes');
  const waiting = new Map<string, PromiseWithResolvers<Report>>();
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
    if ('error' in report) order?.reject(new Error(report.error));
    else order?.resolve(report);
  });
  stdin.write(`${JSON.stringify(setting)}\n`);
  await ready.promise;
  const give = (order: Order | Count): Promise<Report> => {
    const pending = Promise.withResolvers<Report>();
    if (child.exitCode !== null) pending.reject(new Error(`the stage has ended; see ${logFile}`));
    waiting.set(order.id, pending);
    stdin.write(`${JSON.stringify(order)}\n`);
    return pending.promise;
  };
  return {
    ask: async (order) => {
      const report = await give(order);
      if (!('observation' in report)) throw new TypeError('not what was asked for');
      return report.observation;
    },
    mirrored: async (prefix, path) => {
      const report = await give({ id: `count ${prefix}${path}`, prefix, path });
      return 'count' in report ? report.count : 0;
    },
    [Symbol.dispose]: () => void child.kill('SIGKILL'),
  };
}
