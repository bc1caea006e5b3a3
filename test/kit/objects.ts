import type { Authorization } from '#api/policy.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import type { Service } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { deriveSnapshot, type Snapshot } from '#control-plane/derive/snapshot.ts';
import { allocateVips, NO_VIPS } from '#control-plane/derive/vips.ts';
import type { ObjectSet } from '#control-plane/source/objects.ts';
import { readText } from '#control-plane/source/read-text.ts';
import { settle } from '#control-plane/source/settle.ts';

/** The objects of a text, read as a file called `mesh.yaml` is. */
export function objectsOf(text: string): ObjectSet {
  const { entries, isComplete } = readText('mesh.yaml', text);
  return settle([{ path: '/mesh.yaml', entries, isComplete, findings: [] }], new Map()).set;
}

/** What is derived from a text, with virtual addresses given out for the first time. */
export function deriveText(text: string): Snapshot {
  const objects = objectsOf(text);
  return deriveSnapshot({ objects, vips: allocateVips(objects, NO_VIPS) });
}

/** The workload of that uid; the test fails when there is none. */
export function workloadOf(snapshot: Snapshot, uid: string): Workload {
  const resource = snapshot.resources.get(ADDRESS_TYPE)?.get(uid)?.resource;
  if (resource?.kind === 'workload') return resource;
  throw new Error(`no workload ${uid}; there are ${namesOf(snapshot).join(', ')}`);
}

/** The workload of a pod, `namespace/name`. */
export function podOf(snapshot: Snapshot, pod: string): Workload {
  return workloadOf(snapshot, `Kubernetes//Pod/${pod}`);
}

/** The service of that key, `namespace/hostname`; `namespace/name` will do for a Kubernetes Service. */
export function serviceOf(snapshot: Snapshot, key: string): Service {
  const [namespace = '', name = ''] = key.split('/');
  const full = name.includes('.') ? key : `${namespace}/${name}.${namespace}.svc.cluster.local`;
  const resource = snapshot.resources.get(ADDRESS_TYPE)?.get(full)?.resource;
  if (resource?.kind === 'service') return resource;
  throw new Error(`no service ${full}; there are ${namesOf(snapshot).join(', ')}`);
}

/** The policy of that name, `namespace/name`; undefined when none is sent. */
export function policyOf(snapshot: Snapshot, name: string): Authorization | undefined {
  const resource = snapshot.resources.get(AUTHORIZATION_TYPE)?.get(name)?.resource;
  return resource?.kind === 'authorization' ? resource : undefined;
}

/** Names of all workloads and services. */
export function namesOf(snapshot: Snapshot): readonly string[] {
  return [...(snapshot.resources.get(ADDRESS_TYPE)?.keys() ?? [])];
}

/** A Pod that runs and is ready. `fields` go into its metadata, in flow style: `labels: {app: web}`. */
export function podYaml(pod: string, ip: string, fields = '', spec = ''): string {
  const [namespace, name] = pod.split('/');
  return `apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: ${namespace}${fields && `, ${fields}`}}
spec: {nodeName: n1${spec && `, ${spec}`}}
status: {phase: Running, podIP: ${ip}, conditions: [{type: Ready, status: "True"}]}
---
`;
}

/** An object of any kind, with metadata fields, spec and status in flow style. */
export function objectYaml(kind: string, object: string, spec: string, fields = '', status = ''): string {
  const [namespace, name] = object.split('/');
  return `apiVersion: ${API_VERSIONS.get(kind) ?? 'v1'}
kind: ${kind}
metadata: {name: ${name ?? namespace}${name ? `, namespace: ${namespace}` : ''}${fields && `, ${fields}`}}
${spec && `spec: ${spec}`}
${status && `status: ${status}`}
---
`;
}

const API_VERSIONS: ReadonlyMap<string, string> = new Map([
  ['Gateway', 'gateway.networking.k8s.io/v1'],
  ['GatewayClass', 'gateway.networking.k8s.io/v1'],
  ['HTTPRoute', 'gateway.networking.k8s.io/v1'],
  ['GRPCRoute', 'gateway.networking.k8s.io/v1'],
  ['TCPRoute', 'gateway.networking.k8s.io/v1'],
  ['TLSRoute', 'gateway.networking.k8s.io/v1'],
  ['ReferenceGrant', 'gateway.networking.k8s.io/v1'],
  ['BackendTLSPolicy', 'gateway.networking.k8s.io/v1'],
  ['TrafficPolicy', 'tulle.dev/v1alpha1'],
  ['RequestAuthentication', 'security.istio.io/v1'],
  ['AuthorizationPolicy', 'security.istio.io/v1'],
  ['PeerAuthentication', 'security.istio.io/v1'],
  ['RequestAuthentication', 'security.istio.io/v1'],
  ['ServiceEntry', 'networking.istio.io/v1'],
  ['WorkloadEntry', 'networking.istio.io/v1'],
]);
