import type { MeshObject, PodObject } from '../source/objects.ts';
import type { Context } from './context.ts';
import { problemAt } from './problems.ts';

/** A setting of a pod or its namespace, as a label or an annotation. */
export interface PodSetting<Value extends string> {
  /** `tulle.dev/same-node`. */
  readonly key: string;
  readonly values: readonly Value[];
  /** What anything else is taken for, and why it is wrong and what holds, for people. */
  readonly otherwise: { readonly value: Value; readonly message: string; readonly effect: string };
}

/** What a pod says, or else its namespace; what is none of the values is reported. */
export function readPodSetting<Value extends string>(
  context: Context,
  pod: PodObject,
  setting: PodSetting<Value>,
): Value | undefined {
  const namespace = context.inventory.namespaces.get(pod.metadata.namespace);
  return read(context, pod, setting) ?? (namespace && read(context, namespace, setting));
}

function read<Value extends string>(
  context: Context,
  object: MeshObject,
  { key, values, otherwise }: PodSetting<Value>,
): Value | undefined {
  const { labels, annotations } = object.metadata;
  const written = labels.get(key) ?? annotations.get(key);
  if (written === undefined) return undefined;
  const known = values.find((value) => value === written);
  if (known !== undefined) return known;
  const place = labels.has(key) ? 'labels' : 'annotations';
  context.report(
    problemAt(object, {
      path: `metadata.${place}["${key}"]`,
      message: `${JSON.stringify(written)} ${otherwise.message}`,
      severity: 'error',
      effect: otherwise.effect,
    }),
  );
  return otherwise.value;
}
