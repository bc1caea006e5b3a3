import { join } from 'node:path';
import { z } from 'zod';
import { callSocket } from '../unix-http.ts';
import type { FabricNode } from './fabric.ts';
import { nodeRunFolder, type StateFolder } from './state-folder.ts';

/** How many of the connections that a ztunnel's last restart met came to what: `handed_over`, `drained_…`, `reset_…`. */
export type HandedOver = Readonly<Record<string, number>>;

/** What a restart met. */
export interface LastRestart {
  /** It is known of all connections what became of them. */
  readonly isOver: boolean;
  readonly handedOver: HandedOver;
}

const ANSWER: z.ZodType<{
  readonly isOver: boolean;
  readonly met: Readonly<Record<string, HandedOver>>;
}> = z.object({ isOver: z.boolean(), met: z.record(z.string(), z.record(z.string(), z.number())) });
const TIMEOUT_MS = 2_000;

/** Asks the ztunnel of a node. Undefined: it does not answer, or knows no hand-over. */
export async function askHandedOver(state: StateFolder, node: string): Promise<LastRestart | undefined> {
  const socketPath = join(nodeRunFolder(state, node), 'ztunnel.sock');
  try {
    const { status, body } = await callSocket({ socketPath, path: '/hand-over', timeoutMs: TIMEOUT_MS });
    if (status !== 200) return undefined;
    const { isOver, met } = ANSWER.parse(body);
    return { isOver, handedOver: overAllKinds(met) };
  } catch {
    return undefined; // It is down, which its process state shows, or of another make.
  }
}

/** Asks those of all nodes that have one. */
export async function askAllHandedOver(
  state: StateFolder,
  nodes: readonly FabricNode[],
): Promise<ReadonlyMap<string, HandedOver>> {
  const own = nodes.filter(({ external }) => !external);
  const answers = await Promise.all(own.map(({ name }) => askHandedOver(state, name)));
  return new Map(
    own.flatMap(({ name }, at) => (answers[at] === undefined ? [] : [[name, answers[at].handedOver]])),
  );
}

/** `54 handed over`; `52 handed over, 2 left to end (kernel_splice 2), 1 reset (denied 1)`. */
export function handedOverText(handedOver: HandedOver): string {
  const parts = [
    partText(handedOver, 'drained_', 'left to end'),
    partText(handedOver, 'reset_', 'reset'),
  ].filter((part) => part !== '');
  return [`${handedOver['handed_over'] ?? 0} handed over`, ...parts].join(', ');
}

function partText(handedOver: HandedOver, prefix: string, name: string): string {
  const outcomes = Object.entries(handedOver).filter(([outcome]) => outcome.startsWith(prefix));
  if (outcomes.length === 0) return '';
  const sum = outcomes.reduce((all, [, count]) => all + count, 0);
  const why = outcomes.map(([outcome, count]) => `${outcome.slice(prefix.length)} ${count}`).sort();
  return `${sum} ${name} (${why.join(', ')})`;
}

function overAllKinds(byKind: Readonly<Record<string, HandedOver>>): HandedOver {
  const sums = new Map<string, number>();
  for (const counts of Object.values(byKind))
    for (const [outcome, count] of Object.entries(counts))
      sums.set(outcome, (sums.get(outcome) ?? 0) + count);
  return Object.fromEntries(sums);
}
