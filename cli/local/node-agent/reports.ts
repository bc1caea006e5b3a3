import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Reason } from '#bpf/layout.ts';
import type { PodInfo } from '#ztunnel/worker-messages.ts';
import { writeAtomic } from '../state-folder.ts';
import type { PodReport } from './pod-controller.ts';

/** What the control plane is told of a pod: its traffic is redirected, or will be as soon as something works. */
export type Redirection = 'enabled' | 'pending';

/** The files `pods/NS_NAME.redirection`; no file: not redirected. */
export function createRedirectionFiles(stateDirectory: string): {
  readonly read: (fileName: string) => Redirection | undefined;
  readonly write: (fileName: string, redirection: Redirection | undefined) => void;
} {
  const pathOf = (fileName: string): string => join(stateDirectory, 'pods', `${fileName}.redirection`);
  const read = (fileName: string): Redirection | undefined => {
    const path = pathOf(fileName);
    const text = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
    return text === 'enabled' || text === 'pending' ? text : undefined;
  };
  return {
    read,
    write: (fileName, redirection) => {
      if (read(fileName) === redirection) return;
      if (redirection === undefined) rmSync(pathOf(fileName), { force: true });
      else writeAtomic(pathOf(fileName), redirection);
    },
  };
}

/** Takes away what is said of pods that are no more, so that a pod which gets such a name later begins with nothing. */
export function sweepRedirectionFiles(stateDirectory: string): void {
  const folder = join(stateDirectory, 'pods');
  const names = new Set(readdirSync(folder));
  for (const name of names) {
    const pod = /^(.+)\.redirection$/.exec(name)?.[1];
    if (pod !== undefined && !names.has(`${pod}.json`)) rmSync(join(folder, name), { force: true });
  }
}

/** What the node agent did: `run/NODE/node-agent.json`. */
export interface AgentReport {
  readonly pods: readonly (Pick<PodInfo, 'uid' | 'name' | 'namespace'> &
    PodReport & {
      /** How often what was refused since the pod was captured; as it was a second ago, with packet rules ten. */
      readonly refused?: Readonly<Partial<Record<Reason, number>>>;
    })[];
  readonly ztunnel: { readonly connected: number };
  /** Files that cannot be read, and what else an operator should know. */
  readonly problems: readonly string[];
}

/** Writes the report whenever it differs from the last one. */
export function createReportFile(stateDirectory: string, node: string): (report: AgentReport) => void {
  const path = join(stateDirectory, 'run', node, 'node-agent.json');
  let last = '';
  return (report) => {
    const text = `${JSON.stringify(report)}\n`;
    if (text === last) return;
    writeAtomic(path, text);
    last = text;
  };
}
