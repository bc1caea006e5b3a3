import { createHash } from 'node:crypto';
import { usageError } from '../cli-error.ts';

/** A workload by namespace and name. */
export interface WorkloadRef {
  readonly namespace: string;
  readonly name: string;
}

const DNS_LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const LABEL_NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const LABEL_PREFIX = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
const PORT_NAME = /^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/;

/** Names a mesh by its state folder: what everything of it on this host is called by. */
export function meshName(realStatePath: string): string {
  return `tulle-${createHash('sha256').update(realStatePath).digest('hex').slice(0, 6)}`;
}

/** Network namespace of the bridge that joins the nodes. */
export function fabricNetns(mesh: string): string {
  return `${mesh}-fabric`;
}

export function controlPlaneNetns(mesh: string): string {
  return `${mesh}-control-plane`;
}

export function nodeNetns(mesh: string, node: string): string {
  return `${mesh}-node-${node}`;
}

/** A label never holds `_`, so no two workloads share a name. */
export function podNetns(mesh: string, pod: WorkloadRef): string {
  return `${podNetnsPrefix(mesh)}${podFileName(pod)}`;
}

/** What the namespaces of all workloads begin with. */
export function podNetnsPrefix(mesh: string): string {
  return `${mesh}-pod-`;
}

/** What a workload's files and cgroup are called: `shop_web-1`. */
export function podFileName(pod: WorkloadRef): string {
  return `${pod.namespace}_${pod.name}`;
}

/** `shop/web-1`. */
export function formatWorkloadRef(pod: WorkloadRef): string {
  return `${pod.namespace}/${pod.name}`;
}

/**
 * Reads `NS/NAME`.
 * @throws CliError (usage)
 */
export function parseWorkloadRef(text: string): WorkloadRef {
  const [namespace = '', name = '', ...rest] = text.split('/');
  if (rest.length > 0 || !DNS_LABEL.test(namespace) || !DNS_LABEL.test(name)) {
    throw usageError(`not a workload: ${JSON.stringify(text)} (wanted: NAMESPACE/NAME, such as shop/web-1)`);
  }
  return { namespace, name };
}

/**
 * Checks a namespace, service account, node or workload name: a DNS label.
 * @throws CliError (usage)
 */
export function checkName(what: string, name: string): string {
  if (DNS_LABEL.test(name)) return name;
  throw usageError(
    `${what} ${JSON.stringify(name)} is not a name: wanted are lower-case letters, digits and '-', at most 63, beginning and ending with a letter or digit`,
  );
}

/**
 * Reads `key=value` as Kubernetes takes labels.
 * @throws CliError (usage)
 */
export function parseLabel(text: string): readonly [key: string, value: string] {
  const equals = text.indexOf('=');
  const key = text.slice(0, Math.max(equals, 0));
  const value = text.slice(equals + 1);
  const slash = key.lastIndexOf('/');
  const prefixFits = slash < 0 || LABEL_PREFIX.test(key.slice(0, slash));
  const valueFits = value === '' || LABEL_NAME.test(value);
  if (equals > 0 && prefixFits && LABEL_NAME.test(key.slice(slash + 1)) && valueFits) return [key, value];
  throw usageError(`not a label: ${JSON.stringify(text)} (wanted: key=value, such as app=web)`);
}

/** A port that a workload names. */
export interface NamedPort {
  readonly name: string;
  readonly port: number;
}

/**
 * Reads `name=8080`.
 * @throws CliError (usage)
 */
export function parseNamedPort(text: string): NamedPort {
  const [, name = '', digits = ''] = /^([^=]*)=(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (PORT_NAME.test(name) && /[a-z]/.test(name) && port >= 1 && port <= 65535) return { name, port };
  throw usageError(`not a named port: ${JSON.stringify(text)} (wanted: name=number, such as http=8080)`);
}
