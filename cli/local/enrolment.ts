import { join } from 'node:path';
import { z } from 'zod';
import { nodeRunFolder, readJson, type StateFolder } from './state-folder.ts';

/** Where a workload stands between the label on its namespace and its traffic going through the mesh. */
export type EnrolmentState =
  /** The control plane has not yet said whether it belongs into the mesh. */
  | { readonly kind: 'unknown'; readonly reason?: string }
  | { readonly kind: 'outside' }
  | { readonly kind: 'pending'; readonly reason: string }
  | {
      readonly kind: 'enrolled';
      readonly capture: string;
      /** Why it is not eBPF. */
      readonly captureReason?: string;
      readonly refused: Readonly<Record<string, number>>;
    };

/** What the control plane wants of a node's pods: run/NODE/enrolment.json. */
interface Wanted {
  readonly pods: readonly { readonly uid: string; readonly enrol: boolean }[];
}

/** What the node agent did: run/NODE/node-agent.json. */
interface Done {
  readonly pods: readonly {
    readonly uid: string;
    readonly state: 'enrolled' | 'pending' | 'releasing' | 'out';
    readonly capture?: string | undefined;
    readonly captureReason?: string | undefined;
    readonly refused?: Readonly<Record<string, number>> | undefined;
    readonly error?: string | undefined;
  }[];
  readonly ztunnel: { readonly connected: number };
}

const WANTED: z.ZodType<Wanted> = z.object({
  pods: z.array(z.object({ uid: z.string(), enrol: z.boolean() })),
});

const DONE: z.ZodType<Done> = z.object({
  pods: z.array(
    z.object({
      uid: z.string(),
      state: z.enum(['enrolled', 'pending', 'releasing', 'out']),
      capture: z.string().optional(),
      captureReason: z.string().optional(),
      refused: z.record(z.string(), z.number()).optional(),
      error: z.string().optional(),
    }),
  ),
  ztunnel: z.object({ connected: z.number() }),
});

/** The two reports about the pods of one node; a report that is not there, or not whole, says nothing. */
export interface NodeEnrolment {
  readonly wanted: Wanted | undefined;
  readonly done: Done | undefined;
}

/** Reads both reports of a node. */
export function readNodeEnrolment(state: StateFolder, node: string): NodeEnrolment {
  const folder = nodeRunFolder(state, node);
  return {
    wanted: WANTED.safeParse(readJson(join(folder, 'enrolment.json'))).data,
    done: DONE.safeParse(readJson(join(folder, 'node-agent.json'))).data,
  };
}

/** Where a workload stands, by the reports about its node. */
export function enrolmentState(uid: string, { wanted, done }: NodeEnrolment): EnrolmentState {
  const order = wanted?.pods.find((pod) => pod.uid === uid);
  const report = done?.pods.find((pod) => pod.uid === uid);
  if (report?.state === 'enrolled') {
    const { capture = 'nftables', captureReason, refused = {} } = report;
    return { kind: 'enrolled', capture, ...(captureReason && { captureReason }), refused };
  }
  if (order === undefined) return { kind: 'unknown' };
  if (!order.enrol) return { kind: 'outside' };
  if (report?.error !== undefined) return { kind: 'pending', reason: report.error };
  if (done?.ztunnel.connected === 0) return { kind: 'pending', reason: 'no ztunnel runs on its node' };
  return { kind: 'pending', reason: 'the node agent has not enrolled it yet' };
}
