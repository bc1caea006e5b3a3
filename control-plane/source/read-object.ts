import { brokenPolicy } from './broken-policy.ts';
import type { SourceDocument } from './documents.ts';
import type { Entry, Finding } from './entry.ts';
import { type Fault, nearest, schemaFaults, unknownFieldFault } from './faults.ts';
import type { KindDefinition } from './kind.ts';
import { CLOSED_GROUPS, KINDS, NAMESAKES } from './kinds.ts';
import { type BrokenPolicy, type MeshObject, type ObjectKey, objectKey, type Position } from './objects.ts';
import { formatPath, parsePath } from './path.ts';
import { isRecord, valueAt } from './plain-value.ts';
import { dnsLabel, dnsSubdomain, shown } from './schema-parts.ts';
import { unknownFields } from './unknown-fields.ts';

/** Where an object comes from: a document, or a part of one. */
export type SourceObject = Omit<SourceDocument, 'faults' | 'text'> & {
  /** The text of the document; absent for a part of one. */
  readonly text?: string;
  /** What is already known to be wrong with its text. */
  readonly findings: readonly Finding[];
};

/** Reads one object. */
export function readObject(source: SourceObject): Entry {
  const { value } = source;
  if (!isRecord(value)) return nameless(source, [], 'is not an object with apiVersion, kind and metadata');
  const { kind, apiVersion } = value;
  if (typeof kind !== 'string' || kind === '') return nameless(source, ['kind'], 'is required, as text');
  if (typeof apiVersion !== 'string') return nameless(source, ['apiVersion'], 'is required, as text');
  const group = apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.lastIndexOf('/')) : '';
  const definition = KINDS.get(kind);
  if (definition === undefined && CLOSED_GROUPS.has(group))
    return nameless(source, ['kind'], unknownKind(kind, group));
  if (definition && isMisspelt(group, definition))
    return nameless(source, ['apiVersion'], wrongGroup(definition));
  if (definition?.group !== group) return unread(source, kind, definition, `${group}/${kind}`);
  return readKnown(source, definition, apiVersion.slice(apiVersion.lastIndexOf('/') + 1));
}

function readKnown(source: SourceObject, definition: KindDefinition, version: string): Entry {
  const { value, locate } = source;
  const parsed = definition.schema.safeParse(value);
  const faults: Fault[] = [...versionFaults(definition, version)];
  if (!parsed.success) faults.push(...schemaFaults(parsed.error.issues, value));
  for (const unknown of unknownFields(definition.schema, value)) {
    const isRestriction = definition.isStrict && unknown.path[0] !== 'metadata';
    faults.push(unknownFieldFault(unknown, isRestriction ? 'error' : 'warning'));
  }
  faults.push(...emptyFieldFaults(source, definition));
  const position = locate([], 'value');
  const base = {
    kind: definition.kind,
    position,
    positionOf: (path: string) => locate(parsePath(path), 'value'),
  };
  // The schema's output is the rest of the object of this kind.
  const object = parsed.success ? ({ ...base, ...(parsed.data as object) } as MeshObject) : undefined;
  if (object) faults.push(...definition.review(object, value));
  const key = object ? objectKey(object) : keyOf(definition, value);
  const name = key ?? nameOf(definition.kind, value);
  const findings = source.findings.map((one) => ({ ...one, object: name }));
  // Where the text itself is wrong, the rest only follows from that.
  if (!hasError(findings))
    findings.push(...faults.map((fault) => finding(source, name, fault)).sort(byPosition));
  if (object && !hasError(findings))
    return { kind: 'good', key: objectKey(object), object, written: value, findings };
  return { kind: 'wrong', position, findings, ...(key === undefined ? {} : { key }), ...policyOf(source) };
}

function policyOf(source: SourceObject): { readonly policy?: BrokenPolicy } {
  const policy = brokenPolicy(source);
  return policy === undefined ? {} : { policy };
}

function byPosition({ position: one }: Finding, { position: other }: Finding): number {
  return one.line - other.line || one.column - other.column;
}

function hasError(findings: readonly Finding[]): boolean {
  return findings.some(({ severity }) => severity === 'error');
}

function* versionFaults(definition: KindDefinition, version: string): Generator<Fault> {
  if (definition.versions.includes(version)) return;
  const known = definition.versions.map((one) =>
    definition.group === '' ? one : `${definition.group}/${one}`,
  );
  const message = `version ${shown(version)} of ${definition.kind} is not known; write ${known.join(' or ')}`;
  yield { path: ['apiVersion'], part: 'value', message, severity: 'error' };
}

/** In a policy, a restriction without a value restricts nothing. */
function emptyFieldFaults(source: SourceObject, definition: KindDefinition): Fault[] {
  if (!definition.isStrict) return [];
  const message = 'has no value, so it is as if it were not there';
  return source.empties
    .filter((path) => path[0] === 'spec')
    .map((path) => ({ path, part: 'key', message, severity: 'warning' }));
}

function unread(
  source: SourceObject,
  kind: string,
  namesake: KindDefinition | undefined,
  groupKind: string,
): Entry {
  const object = nameOf(kind, source.value);
  const position = source.locate([], 'value');
  const findings = [...source.findings];
  if (namesake && !NAMESAKES.has(groupKind)) {
    const message = wrongGroup(namesake);
    findings.push(
      finding(source, object, { path: ['apiVersion'], part: 'value', message, severity: 'warning' }),
    );
  }
  return { kind: 'unread', object, position, findings };
}

function nameless(source: SourceObject, path: Fault['path'], message: string): Entry {
  const position = source.locate([], 'value');
  const kind = valueAt(source.value, ['kind']);
  const object = typeof kind === 'string' && kind !== '' ? nameOf(kind, source.value) : position.file;
  const fault = finding(source, object, { path, part: 'value', message, severity: 'error' });
  const findings = hasError(source.findings) ? source.findings : [...source.findings, fault];
  return { kind: 'wrong', position, findings, ...policyOf(source) };
}

function finding(source: SourceObject, object: string, fault: Fault): Finding {
  const { path, part, message, severity } = fault;
  const position: Position = source.locate(path, part);
  const effect = severity === 'warning' ? { effect: 'ignored' } : {};
  return { object, position, path: formatPath(path), message, severity, ...effect };
}

/** A policy is not passed over because of a slip in its group. */
function isMisspelt(group: string, { group: own, isStrict }: KindDefinition): boolean {
  return isStrict && group !== own && (group === '' || nearest(group, [own]) !== undefined);
}

function wrongGroup({ kind, group, versions }: KindDefinition): string {
  const meant = group === '' ? versions[0] : `${group}/${versions[0]}`;
  return `${kind} of this group is not read; did you mean apiVersion: ${meant}?`;
}

function unknownKind(kind: string, group: string): string {
  const kinds = [...KINDS.values()].filter((one) => one.group === group).map((one) => one.kind);
  const meant = nearest(kind, kinds);
  const remedy = meant === undefined ? `there are ${kinds.join(', ')}` : `did you mean ${meant}?`;
  return `${group} has no kind ${shown(kind)}; ${remedy}`;
}

/** The key of an object that is wrong, if its name can be trusted. */
function keyOf(definition: KindDefinition, value: unknown): ObjectKey | undefined {
  const name = valueAt(value, ['metadata', 'name']);
  const namespace = definition.isNamespaced ? (valueAt(value, ['metadata', 'namespace']) ?? 'default') : '';
  if (!dnsSubdomain.safeParse(name).success) return undefined;
  if (namespace !== '' && !dnsLabel.safeParse(namespace).success) return undefined;
  // Both have just been seen to be text.
  return objectKey({
    kind: definition.kind,
    metadata: { name: name as string, namespace: namespace as string },
  });
}

/** What an object calls itself, whatever that is. */
function nameOf(kind: string, value: unknown): string {
  const name = valueAt(value, ['metadata', 'name']);
  const namespace = valueAt(value, ['metadata', 'namespace']);
  const prefix = typeof namespace === 'string' ? `${printable(namespace)}/` : '';
  return `${printable(kind)} ${prefix}${typeof name === 'string' ? printable(name) : '(no name)'}`;
}

function printable(text: string): string {
  return /^[\w.:-]{1,253}$/.test(text) ? text : shown(text);
}
