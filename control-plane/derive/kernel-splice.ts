import type { Workload } from '#api/workload.ts';
import type { MeshObject, PodObject } from '../source/objects.ts';
import type { Context } from './context.ts';
import { problemAt } from './problems.ts';

/**
 * Of a pod or its namespace, as a label or an annotation: whether bytes between it and another pod of its node that says
 * the same may go past the ztunnel. `"true"` or `"false"` (the default).
 */
const SPLICE = 'tulle.dev/splice';

/** What a pod says of it, or else its namespace. */
export function spliceOf(context: Context, pod: PodObject): Pick<Workload, 'splice'> {
  const namespace = context.inventory.namespaces.get(pod.metadata.namespace);
  const said = readSplice(context, pod) ?? (namespace && readSplice(context, namespace));
  return said === 'true' ? { splice: true } : {};
}

/** What is neither of the two is taken for no: applications may notice the splice. */
function readSplice(context: Context, object: MeshObject): 'true' | 'false' | undefined {
  const { labels, annotations } = object.metadata;
  const written = labels.get(SPLICE) ?? annotations.get(SPLICE);
  if (written === undefined || written === 'true' || written === 'false') return written;
  const place = labels.has(SPLICE) ? 'labels' : 'annotations';
  context.report(
    problemAt(object, {
      path: `metadata.${place}["${SPLICE}"]`,
      message: `${JSON.stringify(written)} is neither "true" nor "false"`,
      severity: 'error',
      effect: 'its bytes go through the ztunnel',
    }),
  );
  return 'false';
}
