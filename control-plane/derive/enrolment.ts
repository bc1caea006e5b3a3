import type { PodObject } from '../source/objects.ts';
import type { Context } from './context.ts';
import { compareText } from './inventory.ts';
import type { PolicySet } from './policies.ts';
import { getOrAdd } from './selectors.ts';
import { instanceOf, isGatewayPart } from './waypoints.ts';
import { hasEnded } from './workloads.ts';

/** What the node agent is to do with a pod. */
export interface EnrolmentPod {
  /** The pod's own, or `<cluster>//Pod/<namespace>/<name>` where it has none. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Whether its UDP traffic passes: a pod that refuses plaintext refuses it, too, unless it says `tulle.dev/udp: allow`. */
  readonly udp: 'allow' | 'refuse';
  /** Whether it stays closed without a ztunnel, and is kept from going round the mesh: where PeerAuthentication is STRICT. */
  readonly mode: 'strict' | 'permissive';
  /** Whether its traffic is to go through the ztunnel. */
  readonly enrol: boolean;
}

const DATAPLANE_MODE = 'istio.io/dataplane-mode';
const UDP = 'tulle.dev/udp';

/** Every pod that runs on a node, by node, sorted by namespace and name. */
export function deriveEnrolment(
  context: Context,
  policies: Pick<PolicySet, 'modeOf'>,
): ReadonlyMap<string, readonly EnrolmentPod[]> {
  const byNode = new Map<string, EnrolmentPod[]>();
  const running = context.inventory.pods.filter((pod) => pod.spec.nodeName !== '' && !hasEnded(pod));
  for (const pod of running.sort(compareNames))
    getOrAdd(byNode, pod.spec.nodeName, () => []).push(enrolmentOf(context, policies, pod));
  return byNode;
}

/**
 * Whether a pod's traffic is to be captured: the pod's label decides, else that of its namespace. Never a pod in the
 * node's own network, one that has ended, a part of a gateway, or one with a sidecar.
 */
function isEnrolled(context: Context, pod: PodObject): boolean {
  const { labels, annotations, namespace } = pod.metadata;
  if (pod.spec.hostNetwork || hasEnded(pod) || annotations.has('sidecar.istio.io/status')) return false;
  if (isGatewayPart(pod.metadata) || instanceOf(context.waypoints, pod.metadata) !== undefined) return false;
  const inherited = context.inventory.namespaces.get(namespace)?.metadata.labels.get(DATAPLANE_MODE);
  return (labels.get(DATAPLANE_MODE) ?? inherited) === 'ambient';
}

function enrolmentOf(context: Context, policies: Pick<PolicySet, 'modeOf'>, pod: PodObject): EnrolmentPod {
  const { name, namespace, labels, annotations, uid } = pod.metadata;
  const saysAllow = (labels.get(UDP) ?? annotations.get(UDP)) === 'allow';
  const isStrict = policies.modeOf(namespace, labels) === 'STRICT';
  return {
    uid: uid ?? `${context.clusterId}//Pod/${namespace}/${name}`,
    name,
    namespace,
    serviceAccount: pod.spec.serviceAccountName || 'default',
    udp: isStrict && !saysAllow ? 'refuse' : 'allow',
    mode: isStrict ? 'strict' : 'permissive',
    enrol: isEnrolled(context, pod),
  };
}

function compareNames(a: PodObject, b: PodObject): number {
  return (
    compareText(a.metadata.namespace, b.metadata.namespace) || compareText(a.metadata.name, b.metadata.name)
  );
}
