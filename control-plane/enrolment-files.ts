import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { EnrolmentPod } from './derive/enrolment.ts';
import { readIfThere, replaceFile } from './replace-file.ts';

/** What one node's agent should do: `run/NODE/enrolment.json`. */
export interface NodeEnrolment {
  /** Changes with the pods. */
  readonly version: string;
  readonly pods: readonly EnrolmentPod[];
}

/** Tells node agents which pods to enrol, by a file each. */
export interface EnrolmentFiles {
  /** Writes what changed; a node that was written before and has no pods now gets an empty list. */
  readonly write: (enrolment: ReadonlyMap<string, readonly EnrolmentPod[]>) => void;
  /** What was written last, by node. */
  readonly current: () => ReadonlyMap<string, NodeEnrolment>;
}

/** A folder's name, and nothing that leads elsewhere. */
const NODE_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

/** `nodes` are always told, also that they have no pods. */
export function openEnrolmentFiles(stateDirectory: string, nodes: readonly string[]): EnrolmentFiles {
  const written = new Map<string, NodeEnrolment>();
  return {
    current: () => written,
    write: (enrolment) => {
      for (const node of new Set([...nodes, ...written.keys(), ...enrolment.keys()])) {
        if (!NODE_NAME.test(node)) continue;
        const next = nodeEnrolment(enrolment.get(node) ?? []);
        if (written.get(node)?.version === next.version) continue;
        const path = join(stateDirectory, 'run', node, 'enrolment.json');
        const text = `${JSON.stringify(next)}\n`;
        if (readIfThere(path) !== text) replaceFile(path, text);
        written.set(node, next);
      }
    },
  };
}

function nodeEnrolment(pods: readonly EnrolmentPod[]): NodeEnrolment {
  return { version: createHash('sha256').update(JSON.stringify(pods)).digest('hex').slice(0, 16), pods };
}
