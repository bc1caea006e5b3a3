import { parse, YAMLParseError } from 'yaml';
import { type ConfigMapObject, objectKey, type Problem } from '../source/objects.ts';

/** Mesh-wide settings: a subset of Istio's MeshConfig, and ours. */
export interface MeshSettings {
  /** Trust domain of every identity; `cluster.local` when not written. */
  readonly trustDomain: string;
  /** Namespace whose policies hold for the whole mesh; `istio-system` when not written. */
  readonly rootNamespace: string;
  /** External authorizers and the like that policies name; for waypoints. */
  readonly extensionProviders: readonly { readonly name: string; readonly settings: unknown }[];
  /** How waypoints normalize request paths before they authorize: `BASE` when not written. */
  readonly pathNormalization: string;
  /** Whether policies in dry run are sent to ztunnels (`tulle.dryRunPolicies`); off when not written. */
  readonly dryRunPolicies: boolean;
}

/** What holds where nothing is written. */
export const DEFAULT_SETTINGS: MeshSettings = {
  trustDomain: 'cluster.local',
  rootNamespace: 'istio-system',
  extensionProviders: [],
  pathNormalization: 'BASE',
  dryRunPolicies: false,
};

const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/;
const NAMESPACE = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const NORMALIZATIONS: ReadonlySet<unknown> = new Set([
  'NONE',
  'BASE',
  'MERGE_SLASHES',
  'DECODE_AND_MERGE_SLASHES',
]);

/**
 * Reads ConfigMap `istio` of namespace `istio-system`, if there is one. A setting that is wrong keeps its default and
 * is reported; one that is not known is warned about.
 */
export function readSettings(configMaps: readonly ConfigMapObject[]): {
  readonly settings: MeshSettings;
  readonly problems: readonly Problem[];
} {
  const configMap = configMaps.find(
    ({ metadata }) => metadata.name === 'istio' && metadata.namespace === DEFAULT_SETTINGS.rootNamespace,
  );
  if (configMap === undefined) return { settings: DEFAULT_SETTINGS, problems: [] };
  const problems: Problem[] = [];
  const report: Report = (path, message, severity = 'error') =>
    problems.push({
      object: objectKey(configMap),
      position: configMap.positionOf('data.mesh'),
      path: `data.mesh${path === '' ? '' : `: ${path}`}`,
      message,
      severity,
      effect: severity === 'error' ? 'the default is in force' : 'it is ignored',
    });
  for (const key of configMap.data.keys())
    if (key !== 'mesh') report('', `data.${key} is not read, only data.mesh is`, 'warning');
  return { settings: readMesh(parseMesh(configMap.data.get('mesh') ?? '', report), report), problems };
}

/** Reports a fault at a path inside the text. */
type Report = (path: string, message: string, severity?: Problem['severity']) => void;

/** A YAML mapping as a Map; empty when it is not written, or is something else, which is reported. */
function readMapping(value: unknown, path: string, report: Report): ReadonlyMap<string, unknown> {
  if (value === undefined || value === null) return new Map();
  if (typeof value === 'object' && !Array.isArray(value)) return new Map(Object.entries(value));
  report(path, `${path || 'the text'} has to be a mapping`);
  return new Map();
}

function parseMesh(text: string, report: Report): unknown {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof YAMLParseError)) throw error;
    report('', `not YAML: ${error.message.split('\n', 1)[0]}`);
    return undefined;
  }
}

function readMesh(written: unknown, report: Report): MeshSettings {
  const fields = new Map(readMapping(written, '', report));
  const take = (name: string): unknown => {
    const value = fields.get(name);
    fields.delete(name);
    return value;
  };
  const settings: MeshSettings = {
    trustDomain: readText(
      take('trustDomain'),
      'trustDomain',
      TRUST_DOMAIN,
      DEFAULT_SETTINGS.trustDomain,
      report,
    ),
    rootNamespace: readText(
      take('rootNamespace'),
      'rootNamespace',
      NAMESPACE,
      DEFAULT_SETTINGS.rootNamespace,
      report,
    ),
    extensionProviders: readProviders(take('extensionProviders'), report),
    pathNormalization: readNormalization(take('pathNormalization'), report),
    dryRunPolicies: readOwn(take('tulle'), report),
  };
  for (const name of fields.keys()) report(name, `Tulle does not know the setting ${name}`, 'warning');
  return settings;
}

function readText(value: unknown, path: string, form: RegExp, otherwise: string, report: Report): string {
  if (value === undefined || value === null) return otherwise;
  if (typeof value === 'string' && form.test(value)) return value;
  report(path, `${path} is not of the form ${form.source}: ${JSON.stringify(value)}`);
  return otherwise;
}

function readProviders(value: unknown, report: Report): MeshSettings['extensionProviders'] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) {
    report('extensionProviders', 'extensionProviders has to be a list');
    return [];
  }
  return value.flatMap((provider: unknown, index) => {
    const path = `extensionProviders[${index}]`;
    const name = readMapping(provider, path, report).get('name');
    if (typeof name === 'string' && name !== '') return [{ name, settings: provider }];
    report(path, `${path} has no name`);
    return [];
  });
}

function readNormalization(value: unknown, report: Report): string {
  const written = readMapping(value, 'pathNormalization', report).get('normalization');
  if (written === undefined || written === 'DEFAULT') return DEFAULT_SETTINGS.pathNormalization;
  if (NORMALIZATIONS.has(written)) return String(written);
  report(
    'pathNormalization.normalization',
    `${JSON.stringify(written)} is none of DEFAULT, ${[...NORMALIZATIONS].join(', ')}`,
  );
  return DEFAULT_SETTINGS.pathNormalization;
}

function readOwn(value: unknown, report: Report): boolean {
  let dryRunPolicies = DEFAULT_SETTINGS.dryRunPolicies;
  for (const [name, setting] of readMapping(value, 'tulle', report)) {
    if (name !== 'dryRunPolicies')
      report(`tulle.${name}`, `Tulle does not know the setting tulle.${name}`, 'warning');
    else if (typeof setting === 'boolean') dryRunPolicies = setting;
    else report('tulle.dryRunPolicies', 'tulle.dryRunPolicies has to be true or false');
  }
  return dryRunPolicies;
}
