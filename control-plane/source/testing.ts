import type { MeshObject, ObjectSet, Problem } from './objects.ts';
import { readText } from './read-text.ts';
import { type KeptObjects, settle } from './settle.ts';

/** What a file of this text holds. */
export function readSet(text: string, kept: KeptObjects = new Map()): ObjectSet {
  return settle([{ path: 'a.yaml', ...readText('a.yaml', text), findings: [] }], kept).set;
}

/** The text of an object, its spec in flow style. */
export function specYaml(apiVersion: string, kind: string, spec: string, metadata = ''): string {
  const rest = metadata === '' ? '' : `, ${metadata}`;
  return `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: {name: r, namespace: pay${rest}}\nspec: ${spec}\n---\n`;
}

/** The only object of a text that has no error; the test fails when it has. */
export function readOne<Kind extends MeshObject['kind']>(
  text: string,
  kind: Kind,
): Extract<MeshObject, { readonly kind: Kind }> {
  const { objects, problems } = readSet(text);
  if (problems.length > 0) throw new Error(problems.map(problemText).join('\n'));
  const [object] = objects.values();
  if (object?.kind !== kind || objects.size > 1) throw new Error(`${objects.size} objects`);
  // It is of that very kind.
  return object as Extract<MeshObject, { readonly kind: Kind }>;
}

/** `error spec.rules: is empty`, one for each problem. */
export function problemsOf(text: string): readonly string[] {
  return readSet(text).problems.map(problemText);
}

function problemText({ severity, path, message }: Problem): string {
  return `${severity} ${path}: ${message}`;
}
