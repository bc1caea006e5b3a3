import { spawn } from 'node:child_process';
import { join } from 'node:path';
import readline from 'node:readline';
import type { Answer, Question } from './programs/foreign-hbone.ts';

/** A foreign HBONE client (programs/foreign-hbone.ts); disposing of it ends it. */
export interface ForeignClient extends Disposable {
  /** Asks on a connection of its own. By default it is `shop/web`, for an hour, with no headers. */
  readonly ask: (question: Partial<Question>) => Promise<Answer>;
}

const HOUR_MS = 3_600_000;

/**
 * Starts one in a pod's network, and outside its file system: it signs its own certificates with the authority in `state`.
 * @param ip whose port 15008 is called
 */
export function startForeignClient(state: string, netns: string, ip: string): ForeignClient {
  const program = join(import.meta.dirname, 'programs/foreign-hbone.ts');
  const child = spawn('nsenter', [`--net=/run/netns/${netns}`, process.execPath, program, state, ip], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    ask: async (question) => {
      const uris = ['spiffe://cluster.local/ns/shop/sa/web'];
      const whole: Question = { uris, notAfterMs: Date.now() + HOUR_MS, headers: {}, ...question };
      child.stdin.write(`${JSON.stringify(whole)}\n`);
      const { value } = await lines.next();
      return JSON.parse(String(value)) as Answer;
    },
    [Symbol.dispose]: () => child.stdin.end(),
  };
}
