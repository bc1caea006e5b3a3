import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import readline from 'node:readline';
import { eventually } from '../eventually.ts';
import type { Command, Results } from './commands.ts';
import type { Entry } from './journal.ts';

/** A stock ztunnel that is played in a namespace: see ztunnel.ts. */
export interface StockZtunnel {
  /** What it has said, heard and done so far. */
  readonly journal: readonly Entry[];
  /** What it complained of. */
  readonly errors: () => string;
  /** Entries of one kind so far. */
  readonly entries: <K extends Entry['event']>(event: K) => readonly (Entry & { readonly event: K })[];
  /** Waits for an entry of a kind that fulfils a condition. */
  readonly until: <K extends Entry['event']>(
    event: K,
    check?: (entry: Entry & { readonly event: K }) => boolean,
  ) => Promise<Entry & { readonly event: K }>;
  readonly run: <K extends Command['do']>(command: Command & { readonly do: K }) => Promise<Results[K]>;
  /** Ends it, as a process that is killed ends. */
  readonly stop: () => Promise<void>;
}

/** Starts one in a network namespace (a name that `ip netns` lists) with the settings of a file, and with nothing else. */
export function startStockZtunnel(netns: string, environmentFile: string): StockZtunnel {
  const settings = readFileSync(environmentFile, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const);
  const child = spawn(
    'nsenter',
    [`--net=/run/netns/${netns}`, process.execPath, join(import.meta.dirname, 'ztunnel.ts')],
    {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: process.env['PATH'], ...Object.fromEntries(settings) },
    },
  );
  return play(child);
}

type Line = Entry | { readonly event: 'result'; readonly id: number; readonly value: unknown };

function play(child: ChildProcess): StockZtunnel {
  const journal: Entry[] = [];
  const results = new Map<number, unknown>();
  let errors = '';
  let commands = 0;
  child.stderr?.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  if (child.stdout !== null) {
    readline.createInterface({ input: child.stdout }).on('line', (text) => {
      const line = JSON.parse(text) as Line;
      if (line.event === 'result') results.set(line.id, line.value);
      else journal.push(line);
    });
  }
  const isOfKind =
    <K extends Entry['event']>(event: K) =>
    (entry: Entry): entry is Entry & { readonly event: K } =>
      entry.event === event;
  const alive = (): void => {
    if (child.exitCode !== null)
      throw new Error(`the played ztunnel ended with ${child.exitCode}:\n${errors}`);
  };
  return {
    journal,
    errors: () => errors,
    entries: (event) => journal.filter(isOfKind(event)),
    until: (event, check = () => true) =>
      eventually(`${event} of the played ztunnel`, () => {
        const found = journal.filter(isOfKind(event)).find(check);
        if (found === undefined) alive();
        return found;
      }),
    run: async (command) => {
      const id = ++commands;
      child.stdin?.write(`${JSON.stringify({ ...command, id })}\n`);
      return (await eventually(`${command.do} by the played ztunnel`, () => {
        if (!results.has(id)) alive();
        return results.has(id) ? { value: results.get(id) } : undefined;
      }).then(({ value }) => value)) as Results[(typeof command)['do']];
    },
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.stdin?.end();
      await once(child, 'exit');
    },
  };
}
