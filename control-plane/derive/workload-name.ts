import type { ObjectMeta, StringMap } from '../source/objects.ts';

const NAME_LABELS = ['service.istio.io/canonical-name', 'app.kubernetes.io/name', 'app'];
const REVISION_LABELS = ['service.istio.io/canonical-revision', 'app.kubernetes.io/version', 'version'];
const WORKLOAD_NAME_LABEL = 'service.istio.io/workload-name';

/** A Job of a CronJob has the scheduled minute at its end. */
const CRON_JOB_NAME = /^(.+)-\d{8,10}$/;

/** Name and revision under which telemetry groups workloads. */
export function canonicalService(
  labels: StringMap,
  workloadName: string,
): { readonly canonicalName: string; readonly canonicalRevision: string } {
  return {
    canonicalName: firstOf(labels, NAME_LABELS) ?? workloadName,
    canonicalRevision: firstOf(labels, REVISION_LABELS) ?? 'latest',
  };
}

/** The name of what made the pod (a Deployment, a CronJob …), as far as the pod itself tells; else the pod's own. */
export function podWorkloadName(pod: ObjectMeta): string {
  return pod.labels.get(WORKLOAD_NAME_LABEL) ?? (ownerName(pod) || pod.name);
}

/** The name of what a WorkloadEntry stands for. */
export function entryWorkloadName(entry: ObjectMeta, labels: StringMap): string {
  return (
    entry.annotations.get('istio.io/autoRegistrationGroup') ?? labels.get(WORKLOAD_NAME_LABEL) ?? entry.name
  );
}

function ownerName(pod: ObjectMeta): string {
  const owner = pod.generateName ? pod.ownerReferences.find((reference) => reference.controller) : undefined;
  if (owner === undefined) return '';
  switch (owner.kind) {
    case 'ReplicaSet':
      return replicaSetOwner(owner.name, pod.labels);
    case 'ReplicationController':
      return pod.labels.get('deploymentconfig') || owner.name;
    case 'Job':
      return CRON_JOB_NAME.exec(owner.name)?.[1] ?? owner.name;
    default:
      return owner.name;
  }
}

function replicaSetOwner(name: string, labels: StringMap): string {
  for (const label of ['pod-template-hash', 'rollouts-pod-template-hash']) {
    const hash = labels.get(label);
    if (hash && name.endsWith(hash))
      return name.endsWith(`-${hash}`) ? name.slice(0, -hash.length - 1) : name;
  }
  return name;
}

function firstOf(labels: StringMap, keys: readonly string[]): string | undefined {
  for (const key of keys) if (labels.has(key)) return labels.get(key);
  return undefined;
}
