import { parse } from 'yaml';
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
  /** Whether no fault of a TrafficPolicy is injected anywhere (`tulle.faults: off`); false when not written. */
  readonly faultsOff: boolean;
}

/** What holds where nothing is written. */
export const DEFAULT_SETTINGS: MeshSettings = {
  trustDomain: 'cluster.local',
  rootNamespace: 'istio-system',
  extensionProviders: [],
  pathNormalization: 'BASE',
  dryRunPolicies: false,
  faultsOff: false,
};

const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/;
const NAMESPACE = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const NORMALIZATIONS: ReadonlySet<unknown> = new Set([
  'NONE',
  'BASE',
  'MERGE_SLASHES',
  'DECODE_AND_MERGE_SLASHES',
]);

/** Settings, and what was wrong with what is written. */
interface ReadSettings {
  readonly settings: MeshSettings;
  readonly problems: readonly Problem[];
}

/**
 * Reads ConfigMap `istio` of namespace `istio-system`, if there is one. A setting that is wrong stays what it was in
 * `previous` and is reported; one that is not known is warned about. The trust domain stays that of the authority, if there is
 * one: certificates and roots are for it, and a change is refused.
 */
export function readSettings(
  configMaps: readonly ConfigMapObject[],
  previous: MeshSettings = DEFAULT_SETTINGS,
  authority?: string,
): ReadSettings {
  const configMap = configMaps.find(
    ({ metadata }) => metadata.name === 'istio' && metadata.namespace === DEFAULT_SETTINGS.rootNamespace,
  );
  const written =
    configMap === undefined
      ? { settings: DEFAULT_SETTINGS, problems: [] }
      : readConfigMap(configMap, previous);
  const { trustDomain } = written.settings;
  if (authority === undefined || trustDomain === authority) return written;
  return {
    settings: { ...written.settings, trustDomain: authority },
    problems: [...written.problems, refusedTrustDomain(configMap, trustDomain, authority)],
  };
}

function refusedTrustDomain(
  configMap: ConfigMapObject | undefined,
  trustDomain: string,
  authority: string,
): Problem {
  return {
    object: configMap === undefined ? 'ConfigMap istio-system/istio' : objectKey(configMap),
    position: configMap?.positionOf('data.mesh') ?? { file: '', line: 0, column: 0 },
    path: 'data.mesh: trustDomain',
    message: `the trust domain is to become ${trustDomain}, and the authority is for ${authority}; put it back, or start anew with another state folder`,
    severity: 'error',
    effect: `it stays ${authority}; all else that is written is in force`,
  };
}

function readConfigMap(configMap: ConfigMapObject, previous: MeshSettings): ReadSettings {
  const problems: Problem[] = [];
  const report: Report = (path, message, severity = 'error') =>
    problems.push({
      object: objectKey(configMap),
      position: configMap.positionOf('data.mesh'),
      path: `data.mesh${path === '' ? '' : `: ${path}`}`,
      message,
      severity,
      effect: severity === 'error' ? 'what was set before stays, or the default' : 'it is ignored',
    });
  for (const key of configMap.data.keys())
    if (key !== 'mesh') report('', `data.${key} is not read, only data.mesh is`, 'warning');
  const mesh = parseMesh(configMap.data.get('mesh') ?? '', report);
  return { settings: mesh === undefined ? previous : readMesh(mesh, previous, report), problems };
}

/** Reports a fault at a path inside the text. */
type Report = (path: string, message: string, severity?: Problem['severity']) => void;

/** The mapping in the text; undefined and reported when it holds something else. */
function parseMesh(text: string, report: Report): ReadonlyMap<string, unknown> | undefined {
  try {
    return readMapping(parse(text, { logLevel: 'error' }), '', report);
  } catch (error) {
    // Also for text that would grow without end: an anchor in an anchor in an anchor.
    report('', `not YAML: ${error instanceof Error ? error.message.split('\n', 1)[0] : String(error)}`);
    return undefined;
  }
}

/** A YAML mapping as a Map; empty when it is not written, undefined and reported when it is something else. */
function readMapping(value: unknown, path: string, report: Report): ReadonlyMap<string, unknown> | undefined {
  if (value === undefined || value === null) return new Map();
  if (typeof value === 'object' && !Array.isArray(value)) return new Map(Object.entries(value));
  report(path, `${path || 'the text'} has to be a mapping`);
  return undefined;
}

function readMesh(
  written: ReadonlyMap<string, unknown>,
  previous: MeshSettings,
  report: Report,
): MeshSettings {
  const fields = new Map(written);
  const take = (name: string): unknown => {
    const value = fields.get(name);
    fields.delete(name);
    return value;
  };
  const readText = (name: 'trustDomain' | 'rootNamespace', form: RegExp): string => {
    const value = take(name);
    if (value === undefined || value === null) return DEFAULT_SETTINGS[name];
    if (typeof value === 'string' && form.test(value)) return value;
    report(name, `${name} is not of the form ${form.source}: ${JSON.stringify(value)}`);
    return previous[name];
  };
  const settings: MeshSettings = {
    trustDomain: readText('trustDomain', TRUST_DOMAIN),
    rootNamespace: readText('rootNamespace', NAMESPACE),
    extensionProviders: readProviders(take('extensionProviders'), report) ?? previous.extensionProviders,
    pathNormalization: readNormalization(take('pathNormalization'), report) ?? previous.pathNormalization,
    ...readOwn(take('tulle'), previous, report),
  };
  for (const name of fields.keys()) report(name, `Tulle does not know the setting ${name}`, 'warning');
  return settings;
}

function readProviders(value: unknown, report: Report): MeshSettings['extensionProviders'] | undefined {
  if (value === undefined || value === null) return DEFAULT_SETTINGS.extensionProviders;
  if (!Array.isArray(value)) {
    report('extensionProviders', 'extensionProviders has to be a list');
    return undefined;
  }
  const providers = value.map((provider: unknown, index) => {
    const path = `extensionProviders[${index}]`;
    const fields = readMapping(provider, path, report);
    const name = fields?.get('name');
    if (typeof name === 'string' && name !== '') return { name, settings: provider };
    if (fields !== undefined) report(path, `${path} has no name`);
    return undefined;
  });
  const named = providers.filter((provider) => provider !== undefined);
  return named.length === providers.length ? named : undefined;
}

function readNormalization(value: unknown, report: Report): string | undefined {
  const fields = readMapping(value, 'pathNormalization', report);
  if (fields === undefined) return undefined;
  const written = fields.get('normalization') ?? 'DEFAULT';
  if (written === 'DEFAULT') return DEFAULT_SETTINGS.pathNormalization;
  if (NORMALIZATIONS.has(written)) return String(written);
  const allowed = ['DEFAULT', ...NORMALIZATIONS].join(', ');
  report('pathNormalization.normalization', `${JSON.stringify(written)} is none of ${allowed}`);
  return undefined;
}

type OwnSettings = Pick<MeshSettings, 'dryRunPolicies' | 'faultsOff'>;

function readOwn(value: unknown, previous: OwnSettings, report: Report): OwnSettings {
  const { dryRunPolicies, faultsOff } = previous;
  const fields = readMapping(value, 'tulle', report);
  if (fields === undefined) return { dryRunPolicies, faultsOff };
  for (const name of fields.keys())
    if (name !== 'dryRunPolicies' && name !== 'faults')
      report(`tulle.${name}`, `Tulle does not know the setting tulle.${name}`, 'warning');
  return {
    dryRunPolicies: readDryRun(fields.get('dryRunPolicies'), report) ?? dryRunPolicies,
    faultsOff: readFaultsOff(fields.get('faults'), report) ?? faultsOff,
  };
}

function readDryRun(value: unknown, report: Report): boolean | undefined {
  const written = value ?? DEFAULT_SETTINGS.dryRunPolicies;
  if (typeof written === 'boolean') return written;
  report('tulle.dryRunPolicies', 'tulle.dryRunPolicies has to be true or false');
  return undefined;
}

/** `off` is text to some readers of YAML, and a truth value to others. */
function readFaultsOff(value: unknown, report: Report): boolean | undefined {
  if (value === undefined || value === null) return DEFAULT_SETTINGS.faultsOff;
  if (value === 'off' || value === false) return true;
  if (value === 'on' || value === true) return false;
  report('tulle.faults', 'tulle.faults has to be on or off');
  return undefined;
}
