import {
  formatPosition,
  type MeshObject,
  type NodeObject,
  type ObjectKey,
  type ObjectSet,
  objectKey,
  type Problem,
  type StringMap,
} from './objects.ts';

/** Where objects come from. Disposing of it ends its watching. */
export interface Source extends AsyncDisposable {
  /** What it holds now. */
  current(): ObjectSet;
  /**
   * What it holds from now on, each time that changes; of changes that come faster than they are taken, the last.
   * Ends when the signal is aborted or the source is disposed of.
   */
  changes(signal: AbortSignal): AsyncIterable<ObjectSet>;
}

/**
 * Files, and the workloads that run here. Where both have a pod, the one that runs counts, which is a problem; a node
 * of the files adds its labels to the one that runs.
 */
export function mergeObjectSets(files: ObjectSet, local: ObjectSet): ObjectSet {
  const objects = new Map<ObjectKey, MeshObject>(files.objects);
  const problems: Problem[] = [...files.problems, ...local.problems];
  for (const [key, object] of local.objects) {
    const written = files.objects.get(key);
    if (written && object.kind === 'Node') objects.set(key, withLabels(object, written));
    else objects.set(key, object);
    if (written && object.kind !== 'Node') problems.push(overruled(written));
  }
  return {
    objects,
    problems,
    broken: [...files.broken, ...local.broken],
    unread: [...files.unread, ...local.unread],
  };
}

function withLabels(node: NodeObject, { metadata: { labels } }: MeshObject): NodeObject {
  const both: StringMap = new Map([...node.metadata.labels, ...labels]);
  return { ...node, metadata: { ...node.metadata, labels: both } };
}

function overruled(written: MeshObject): Problem {
  return {
    object: objectKey(written),
    position: written.position,
    path: 'metadata.name',
    message: `a workload of this name runs here; rename one of them, or remove ${formatPosition(written.position)}`,
    severity: 'error',
    effect: 'the workload that runs here counts',
  };
}
