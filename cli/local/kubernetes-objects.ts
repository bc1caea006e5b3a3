import { nodeAddress, podAddress } from './addresses.ts';
import type { FabricNode } from './fabric.ts';
import type { PodRecord } from './inventory.ts';
import { podNetns } from './names.ts';
import { netnsPath } from './network-namespace.ts';

/**
 * The Pod object of a workload, as a cluster would have it. It is ready as soon as its command runs (a waypoint: as soon as
 * it says so); before that it has its addresses, so that it can be enrolled, and gets no traffic.
 */
export function podObject(mesh: string, pod: PodRecord, node: FabricNode): unknown {
  const address = podAddress(node.number, pod.number);
  const isRunning = pod.command !== undefined;
  const isReady = isRunning && (pod.ready ?? true);
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: pod.name,
      namespace: pod.namespace,
      uid: pod.uid,
      labels: pod.labels,
      annotations: { 'tulle.dev/netns': netnsPath(podNetns(mesh, pod)) },
      creationTimestamp: pod.createdAt,
    },
    spec: {
      serviceAccountName: pod.serviceAccount,
      nodeName: pod.node,
      containers: [
        {
          name: 'main',
          ports: pod.ports.map(({ name, port }) => ({ name, containerPort: port, protocol: 'TCP' })),
        },
      ],
    },
    status: {
      phase: isRunning ? 'Running' : 'Pending',
      hostIP: nodeAddress(node.number).v4,
      podIP: address.v4,
      podIPs: [{ ip: address.v4 }, { ip: address.v6 }],
      conditions: [{ type: 'Ready', status: isReady ? 'True' : 'False' }],
    },
  };
}

/** The Node object. Each node is a zone of its own, so that a preference for the near can be seen on one machine. */
export function nodeObject(node: FabricNode): unknown {
  const address = nodeAddress(node.number);
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: node.name,
      labels: {
        'kubernetes.io/hostname': node.name,
        'topology.kubernetes.io/region': 'local',
        'topology.kubernetes.io/zone': node.name,
      },
    },
    status: {
      addresses: [
        { type: 'InternalIP', address: address.v4 },
        { type: 'InternalIP', address: address.v6 },
        { type: 'Hostname', address: node.name },
      ],
    },
  };
}
