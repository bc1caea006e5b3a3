import type { Workload } from '#api/workload.ts';
import type { PodObject } from '../source/objects.ts';
import type { Context } from './context.ts';
import { type PodSetting, readPodSetting } from './pod-setting.ts';

/**
 * How the ztunnel carries connections between pods of one node. `direct` (the default): inside the process. `tunnel`:
 * through TLS, as between nodes; what is neither is taken for that.
 */
const SAME_NODE: PodSetting<'tunnel' | 'direct'> = {
  key: 'tulle.dev/same-node',
  values: ['tunnel', 'direct'],
  otherwise: {
    value: 'tunnel',
    message: 'is neither tunnel nor direct',
    effect: 'connections on the node go through tunnels',
  },
};

/** What a pod says of it, or else its namespace. */
export function sameNodeOf(context: Context, pod: PodObject): Pick<Workload, 'sameNode'> {
  return readPodSetting(context, pod, SAME_NODE) === 'tunnel' ? { sameNode: 'tunnel' } : {};
}
