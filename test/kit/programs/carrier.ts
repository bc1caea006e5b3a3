import process from 'node:process';
import type { HostPort } from '#api/address.ts';
import type { Resource } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import type { Svid } from '#certs/svid.ts';
import { CarriedNode } from '#test/kit/carried-node.ts';
import { LoopbackPods } from '#test/kit/loopback-pods.ts';
import { createMemoryBudget, shareMemoryBudget, usedBytes } from '#ztunnel/hbone/memory-budget.ts';
import type { WorkerConfig } from '#ztunnel/worker-messages.ts';

/** What the program is asked; see carrier-process.ts. */
export type CarrierOrder =
  | {
      readonly kind: 'start';
      readonly node: string;
      readonly resources: readonly Resource[];
      readonly svids: readonly Svid[];
      /** Of the resources, those whose pods are served. */
      readonly pods: readonly Workload[];
      /** Where ports of applications really are. */
      readonly applications: readonly { readonly at: HostPort; readonly port: number }[];
      /** Where connections to a pod's port 15001 go. */
      readonly aims: readonly { readonly podIp: string; readonly to: HostPort }[];
      readonly settings: Partial<WorkerConfig>;
      readonly memoryBytes?: number;
    }
  | { readonly kind: 'usage'; readonly collect: boolean };

/** What it answers, and says by itself (`shed`). */
export type CarrierReport =
  | { readonly kind: 'started'; readonly ports: readonly { readonly at: HostPort; readonly port: number }[] }
  | {
      readonly kind: 'usage';
      readonly rss: number;
      readonly waitingBytes: number;
      readonly cpuMs: number;
      readonly connections: number;
    }
  | { readonly kind: 'shed'; readonly shortage: string; readonly count: number; readonly error: string };

const MESH_PORTS = [15001, 15006, 15008];
const pods = new LoopbackPods();
let node: CarriedNode | undefined;

function say(report: CarrierReport): void {
  process.send?.(report);
}

async function start(order: Extract<CarrierOrder, { readonly kind: 'start' }>): Promise<void> {
  const { resources, svids, applications, settings, memoryBytes } = order;
  if (memoryBytes !== undefined) shareMemoryBudget(createMemoryBudget(memoryBytes));
  for (const { at, port } of applications) pods.know(at, port);
  for (const { podIp, to } of order.aims) pods.aim(podIp, to);
  node = new CarriedNode(pods, order.node, settings, (reports) => {
    for (const { shortage, count, error } of reports) say({ kind: 'shed', shortage, count, error });
  });
  await node.learn(...resources);
  for (const svid of svids) await node.tell({ kind: 'svid', svid });
  for (const pod of order.pods) await node.serve(pod);
  const ports = order.pods.flatMap(({ addresses: [ip = ''] }) =>
    MESH_PORTS.map((port) => ({ at: { ip, port }, port: pods.portOf({ ip, port }) })),
  );
  say({ kind: 'started', ports });
}

async function usage(collect: boolean): Promise<void> {
  if (collect) globalThis.gc?.();
  const listed = await node?.request({ kind: 'list-connections' });
  const { user, system } = process.cpuUsage();
  say({
    kind: 'usage',
    rss: process.memoryUsage.rss(),
    waitingBytes: usedBytes(),
    cpuMs: (user + system) / 1000,
    connections: (listed?.value as readonly unknown[] | undefined)?.length ?? 0,
  });
}

/** Nobody asks for them here, and what is kept makes each collection of garbage longer. */
const dropRecords = (): unknown => node?.records.splice(0);
setInterval(dropRecords, 50).unref();

process.on('message', (order: CarrierOrder) => {
  if (order.kind === 'start') void start(order);
  else void usage(order.collect);
});
process.on('disconnect', () => process.exit());
