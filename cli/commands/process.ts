import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { askHandedOver, handedOverText } from '../local/handed-over.ts';
import { callSupervisor, getState } from '../supervisor-client.ts';
import { stateOption } from './options.ts';

/** Each replica of a waypoint may take a minute to start and to drain, one after the other. */
const TIMEOUT_MS = 30 * 60_000;
/** Beyond what a connection may wait for its other end. */
const LAST_WORD_MS = 12_000;

export function registerStop(program: Command): void {
  register(program, 'stop', 'stop a process of the mesh, until it is started again');
}

export function registerStart(program: Command): void {
  register(program, 'start', 'start a process that was stopped');
}

export function registerRestart(program: Command): void {
  const description =
    "replace a process by a new one; a ztunnel's or waypoint's new one serves before the old one drains";
  register(program, 'restart', description);
}

function register(program: Command, verb: string, description: string): void {
  program
    .command(verb)
    .description(description)
    .addOption(stateOption())
    .argument('<process>', 'control-plane, ztunnel/NODE or waypoint/NAMESPACE/NAME')
    .action(async (name: string, options: { readonly state: string }) => {
      const path = `/processes/${encodeURI(name)}/${verb}`;
      await callSupervisor(options.state, { method: 'POST', path, timeoutMs: TIMEOUT_MS });
      const [, node] = /^ztunnel\/(.+)$/.exec(name) ?? [];
      if (verb === 'restart' && node !== undefined) await tellHandedOver(options.state, node);
    });
}

/** Says what became of the connections that were there, as soon as the new process knows it. */
async function tellHandedOver(state: string, node: string): Promise<void> {
  const deadline = performance.now() + LAST_WORD_MS;
  let met = await askHandedOver(getState(state), node);
  while (met?.isOver === false && performance.now() < deadline) {
    await delay(100);
    met = await askHandedOver(getState(state), node);
  }
  if (met !== undefined) console.log(`connections: ${handedOverText(met.handedOver)}`);
}
