import type { Workload } from '#api/workload.ts';
import type { MeshObject, PodObject } from '../source/objects.ts';
import type { Context } from './context.ts';
import { problemAt } from './problems.ts';

/**
 * Of a pod or its namespace, as a label or an annotation: how the ztunnel carries connections between pods of one node.
 * `direct` (the default): inside the process. `tunnel`: through TLS, as between nodes.
 */
const SAME_NODE = 'tulle.dev/same-node';

/** What a pod says of it, or else its namespace. */
export function sameNodeOf(context: Context, pod: PodObject): Pick<Workload, 'sameNode'> {
  const namespace = context.inventory.namespaces.get(pod.metadata.namespace);
  const said = readSameNode(context, pod) ?? (namespace && readSameNode(context, namespace));
  return said === 'tunnel' ? { sameNode: 'tunnel' } : {};
}

/** What is neither of the two is taken for the one that encrypts. */
function readSameNode(context: Context, object: MeshObject): 'tunnel' | 'direct' | undefined {
  const { labels, annotations } = object.metadata;
  const written = labels.get(SAME_NODE) ?? annotations.get(SAME_NODE);
  if (written === undefined || written === 'tunnel' || written === 'direct') return written;
  const place = labels.has(SAME_NODE) ? 'labels' : 'annotations';
  context.report(
    problemAt(object, {
      path: `metadata.${place}["${SAME_NODE}"]`,
      message: `${JSON.stringify(written)} is neither tunnel nor direct`,
      severity: 'error',
      effect: 'connections on the node go through tunnels',
    }),
  );
  return 'tunnel';
}
