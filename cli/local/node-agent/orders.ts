import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type Ip, isIp, parseIp } from '#api/address.ts';
import type { PodInfo } from '#ztunnel/worker-messages.ts';
import type { Order } from './decide.ts';
import type { MeshOrder } from './movement.ts';
import { PROBED_CONTAINER, probePortsOf } from './probe-ports.ts';

/** A pod of this node and what is to become of it. */
export interface OrderedPod {
  readonly pod: PodInfo;
  readonly netnsPath: string;
  /** `NS_NAME`: what its files are called. */
  readonly fileName: string;
  readonly hasStarted: boolean;
  readonly addresses: readonly Ip[];
  /** Its ports on which the node may ask whether it is well. */
  readonly probePorts: readonly number[];
  readonly order: Order;
}

/** The pods of a node, by uid, and files that cannot be read, with the reason. */
export interface Orders {
  readonly pods: ReadonlyMap<string, OrderedPod>;
  /** What is ordered for all pods of the mesh, as far as it can be read. */
  readonly mesh: readonly MeshOrder[];
  readonly problems: readonly string[];
}

/** Annotation of a pod: path of its network namespace. */
const NETNS_ANNOTATION = 'tulle.dev/netns';

const POD = z.object({
  metadata: z.object({
    name: z.string().min(1),
    namespace: z.string().min(1),
    uid: z.string().min(1),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
  spec: z.object({
    nodeName: z.string().optional(),
    serviceAccountName: z.string().optional(),
    containers: z.array(PROBED_CONTAINER).optional(),
    initContainers: z.array(PROBED_CONTAINER).optional(),
  }),
  status: z
    .object({
      phase: z.string().optional(),
      podIP: z.string().optional(),
      podIPs: z.array(z.object({ ip: z.string() })).optional(),
    })
    .optional(),
});

const ENROLMENT = z.object({
  pods: z.array(
    z.object({
      uid: z.string(),
      namespace: z.string(),
      name: z.string(),
      serviceAccount: z.string(),
      udp: z.enum(['allow', 'refuse']),
      mode: z.enum(['strict', 'permissive']),
      enrol: z.boolean(),
    }),
  ),
});

type Enrolment = z.infer<typeof ENROLMENT>['pods'];

/**
 * Reads what the supervisor says of the pods (`pods/*.json`) and the control plane of their enrolment
 * (`run/NODE/enrolment.json`). A file that cannot be read counts as it was before.
 */
export function createOrderReader(stateDirectory: string, node: string): () => Orders {
  const podFolder = join(stateDirectory, 'pods');
  const enrolmentFile = join(stateDirectory, 'run', node, 'enrolment.json');
  let lastPods: ReadonlyMap<string, LocatedPod> = new Map();
  let lastEnrolment: Enrolment = [];
  return () => {
    const problems: string[] = [];
    const attempt = <T>(file: string, read: () => T, otherwise: T): T => {
      try {
        return read();
      } catch (error) {
        if (!isMissing(error)) problems.push(`${file}: ${describe(error)}`);
        return otherwise;
      }
    };
    const files = readdirSync(podFolder).filter((name) => name.endsWith('.json') && !name.startsWith('.'));
    lastPods = new Map(
      files.flatMap((name) => {
        const pod = attempt(name, () => readPod(join(podFolder, name)), lastPods.get(name));
        return pod === undefined ? [] : [[name, pod]];
      }),
    );
    lastEnrolment = attempt(
      enrolmentFile,
      () => ENROLMENT.parse(readJson(enrolmentFile)).pods,
      lastEnrolment,
    );
    const here = [...lastPods].filter(([, pod]) => pod.node === node);
    const mesh = [...lastEnrolment, ...enrolmentElsewhere(join(stateDirectory, 'run'), node)];
    return { pods: combine(here, lastEnrolment), mesh, problems };
  };
}

/** What the agents of the other nodes are told; one that cannot be read is theirs to report. */
function enrolmentElsewhere(runFolder: string, ownNode: string): Enrolment {
  return readdirSync(runFolder).flatMap((node) => {
    if (node === ownNode) return [];
    try {
      return ENROLMENT.parse(readJson(join(runFolder, node, 'enrolment.json'))).pods;
    } catch {
      return [];
    }
  });
}

interface LocatedPod {
  readonly node: string;
  readonly pod: PodInfo;
  readonly netnsPath: string;
  readonly hasStarted: boolean;
  readonly addresses: readonly Ip[];
  readonly probePorts: readonly number[];
}

function readPod(path: string): LocatedPod {
  const { metadata, spec, status } = POD.parse(readJson(path));
  const { name, namespace, uid, annotations } = metadata;
  return {
    node: spec.nodeName ?? '',
    pod: { uid, name, namespace, serviceAccount: spec.serviceAccountName || 'default' },
    netnsPath: annotations?.[NETNS_ANNOTATION] ?? '',
    hasStarted: status?.phase === 'Running',
    addresses: addressesOf(status),
    probePorts: probePortsOf([...(spec.containers ?? []), ...(spec.initContainers ?? [])]),
  };
}

function addressesOf(status: z.infer<typeof POD>['status']): readonly Ip[] {
  const listed = (status?.podIPs ?? []).map(({ ip }) => ip);
  return [...new Set([status?.podIP ?? '', ...listed].filter(isIp).map(parseIp))];
}

function combine(
  pods: readonly (readonly [string, LocatedPod])[],
  enrolment: Enrolment,
): ReadonlyMap<string, OrderedPod> {
  const orders = new Map(enrolment.map((entry) => [entry.uid, entry]));
  return new Map(
    pods
      .filter(([, { netnsPath }]) => netnsPath !== '')
      .map(([file, { node: _, ...located }]) => {
        const entry = orders.get(located.pod.uid);
        const wanted = entry === undefined ? 'unknown' : entry.enrol ? 'in' : 'out';
        const order: Order = { wanted, udp: entry?.udp ?? 'allow', mode: entry?.mode ?? 'permissive' };
        const fileName = file.slice(0, -'.json'.length);
        return [located.pod.uid, { ...located, fileName, order }];
      }),
  );
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8')) as unknown;
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

function describe(error: unknown): string {
  if (error instanceof z.ZodError) return z.prettifyError(error);
  return error instanceof Error ? error.message : String(error);
}
