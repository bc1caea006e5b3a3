import type { Workload } from '#api/workload.ts';
import type { PodObject } from '../source/objects.ts';
import type { Context } from './context.ts';
import { type PodSetting, readPodSetting } from './pod-setting.ts';

/**
 * Whether bytes between a pod and another one of its node that says the same may go past the ztunnel. What is neither
 * is taken for no: applications may notice the splice.
 */
const SPLICE: PodSetting<'true' | 'false'> = {
  key: 'tulle.dev/splice',
  values: ['true', 'false'],
  otherwise: {
    value: 'false',
    message: 'is neither "true" nor "false"',
    effect: 'its bytes go through the ztunnel',
  },
};

/** What a pod says of it, or else its namespace. */
export function spliceOf(context: Context, pod: PodObject): Pick<Workload, 'splice'> {
  return readPodSetting(context, pod, SPLICE) === 'true' ? { splice: true } : {};
}
