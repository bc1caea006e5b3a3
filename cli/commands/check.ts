import type { Command } from 'commander';
import { envoyResourceToJson } from '#api/envoy/json.ts';
import { printResource } from '#api/print.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type ResourceType } from '#api/resource.ts';
import { deriveSnapshot, type Snapshot } from '#control-plane/derive/snapshot.ts';
import { allocateVips, NO_VIPS } from '#control-plane/derive/vips.ts';
import { formatPosition, type ObjectSet, type Problem } from '#control-plane/source/objects.ts';
import { parseFiles } from '#control-plane/source/parse-files.ts';
import { CliError, usageError } from '../cli-error.ts';
import { outputOption, stateOption } from './options.ts';

/** Whose configuration to print. */
type Client =
  | { readonly kind: 'ztunnel'; readonly node: string }
  | { readonly kind: 'waypoint'; readonly namespace: string; readonly name: string };

/** @see checkFiles */
export interface CheckOptions {
  readonly file: readonly string[];
  readonly resources?: Client;
  readonly output: 'text' | 'json';
}

/** `tulle check`: validates objects offline, and prints what a client would be served of them. */
export function registerCheck(program: Command): void {
  program
    .command('check')
    .description('validate objects without a mesh; with --resources, print what a client would be served')
    .requiredOption('-f, --file <path...>', 'files, or folders of YAML and JSON')
    .option('--resources <client>', 'ztunnel/NODE or waypoint/NAMESPACE/NAME', readClient)
    .addOption(outputOption())
    .addOption(stateOption())
    .action(async (options: CheckOptions) => {
      const { text, notes, hasErrors } = await checkFiles(options);
      for (const note of notes) console.error(note);
      console.log(text);
      if (hasErrors) process.exitCode = 1;
    });
}

/** What the command prints. */
export interface CheckReport {
  readonly text: string;
  /** For standard error. */
  readonly notes: readonly string[];
  readonly hasErrors: boolean;
}

/** Reads and derives, as a control plane would, and reports. */
export async function checkFiles({ file, resources, output }: CheckOptions): Promise<CheckReport> {
  const objects = await parseFiles(file);
  const faults = { firstSeen: new Map<string, number>(), nowMs: Date.now() };
  const snapshot = deriveSnapshot({ objects, vips: allocateVips(objects, NO_VIPS), faults });
  const problems = [...snapshot.problems].sort(byPosition);
  const hasErrors = problems.some(({ severity }) => severity === 'error');
  if (resources?.kind === 'waypoint') {
    const text = JSON.stringify(waypointJson(snapshot, resources), undefined, 1);
    return { text, notes: problems.map(problemText), hasErrors };
  }
  if (resources !== undefined) {
    const notes = [...problems.map(problemText), ...unknownNode(objects, resources.node)];
    return { text: JSON.stringify(resourcesJson(snapshot), undefined, 1), notes, hasErrors };
  }
  if (output === 'json')
    return { text: JSON.stringify(reportJson(objects, problems), undefined, 2), notes: [], hasErrors };
  return { text: reportText(objects, problems), notes: [], hasErrors };
}

function readClient(text: string): Client {
  const [kind, ...names] = text.split('/');
  const [first = '', second = ''] = names;
  if (kind === 'ztunnel' && names.length === 1 && first !== '') return { kind, node: first };
  if (kind === 'waypoint' && names.length === 2 && first !== '' && second !== '')
    return { kind, namespace: first, name: second };
  throw usageError(`--resources ${text}: write ztunnel/NODE or waypoint/NAMESPACE/NAME`);
}

/** A ztunnel is served all of it, whatever its node. */
function resourcesJson({ resources }: Snapshot): unknown {
  const named = (type: ResourceType): unknown =>
    Object.fromEntries(
      [...(resources.get(type) ?? [])].map(([name, { resource }]) => [name, printResource(resource)]),
    );
  return { Address: named(ADDRESS_TYPE), Authorization: named(AUTHORIZATION_TYPE) };
}

/** Resources by the names of their messages, each as Envoy's tools write it. */
function waypointJson({ waypoints, resources }: Snapshot, client: Client & { kind: 'waypoint' }): unknown {
  const key = `${client.namespace}/${client.name}`;
  const waypoint = waypoints.get(key);
  if (waypoint === undefined) {
    const known = [...waypoints.keys()].map((each) => `waypoint/${each}`).join(', ') || 'none';
    throw new CliError(`no Gateway of a waypoint class is called ${key}; the waypoints are: ${known}`);
  }
  const envoy = [...waypoint.resources].map(([type, named]): [string, unknown] => [
    type.slice(type.lastIndexOf('.') + 1),
    Object.fromEntries([...named].map(([name, resource]) => [name, envoyResourceToJson(resource)])),
  ]);
  const policies = waypoint.authorizations.flatMap((name): [string, unknown][] => {
    const derived = resources.get(AUTHORIZATION_TYPE)?.get(name);
    return derived === undefined ? [] : [[name, printResource(derived.resource)]];
  });
  return { ...Object.fromEntries(envoy), Authorization: Object.fromEntries(policies) };
}

function unknownNode({ objects }: ObjectSet, node: string): readonly string[] {
  const isKnown = [...objects.values()].some((object) =>
    object.kind === 'Pod'
      ? object.spec.nodeName === node
      : object.kind === 'Node' && object.metadata.name === node,
  );
  return isKnown
    ? []
    : [`warning: no Node and no Pod names a node ${node}; every ztunnel is served the same`];
}

function reportText({ objects, unread }: ObjectSet, problems: readonly Problem[]): string {
  const count = (severity: Problem['severity']): number =>
    problems.filter((one) => one.severity === severity).length;
  return [
    ...problems.map(problemText),
    ...unread.map(
      ({ object, position }) => `${formatPosition(position)}: ${object} is of a kind that is not read`,
    ),
    `${objects.size} objects, ${count('error')} errors, ${count('warning')} warnings`,
  ].join('\n');
}

/** `a.yaml:3:5: spec.action: "ALOW" is not one of … (denies what it selects)` */
function problemText({ position, path, message, severity, effect }: Problem): string {
  const sort = severity === 'warning' ? 'warning: ' : '';
  return `${formatPosition(position)}: ${path === '' ? '' : `${path}: `}${sort}${message} (${effect})`;
}

function reportJson({ objects, unread }: ObjectSet, problems: readonly Problem[]): unknown {
  return {
    valid: problems.every(({ severity }) => severity !== 'error'),
    objects: [...objects.keys()],
    unread: unread.map(({ object, position }) => ({ object, position: formatPosition(position) })),
    problems: problems.map(({ position, ...problem }) => ({
      ...problem,
      position: formatPosition(position),
    })),
  };
}

function byPosition({ position: one }: Problem, { position: other }: Problem): number {
  return compare(one.file, other.file) || one.line - other.line || one.column - other.column;
}

function compare(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}
