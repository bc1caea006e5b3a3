import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { runTool } from './system-tool.ts';

const NETNS_FOLDER = '/run/netns';

/** Path of a named network namespace, as `ip netns` lists it. */
export function netnsPath(name: string): string {
  return join(NETNS_FOLDER, name);
}

/** Names of the namespaces of one mesh. */
export function listNamespaces(mesh: string): readonly string[] {
  if (!existsSync(NETNS_FOLDER)) return [];
  return readdirSync(NETNS_FOLDER).filter((name) => name.startsWith(`${mesh}-`));
}

/** Makes named namespaces. */
export async function addNamespaces(names: readonly string[]): Promise<void> {
  if (names.length > 0) await ipBatch(names.map((name) => `netns add ${name}`));
}

/** Takes the names away; a namespace ends, with its links and rules, when no process is in it any more. */
export async function deleteNamespaces(names: readonly string[]): Promise<void> {
  if (names.length > 0) await ipBatch(names.map((name) => `netns del ${name}`));
}

/** Runs lines of `ip` in one go; a line takes no options (`-n`, `-6`). */
export async function ipBatch(lines: readonly string[]): Promise<void> {
  await runTool(['ip', '-batch', '-'], `${lines.join('\n')}\n`);
}

/** Removes a link, and with it its other end; nothing happens when it is not there. */
export async function deleteLink(netns: string, link: string): Promise<void> {
  await runTool(['ip', '-n', netns, 'link', 'del', link]).catch(() => undefined);
}

/** What to set up inside a namespace. */
export interface NamespaceSetup {
  /** Path under /proc/sys to value; one that this kernel lacks is left out. */
  readonly sysctls: Readonly<Record<string, string>>;
  /** Lines of `ip`. */
  readonly ip: readonly string[];
}

/** Sets kernel parameters and runs lines of `ip`, all inside one namespace. */
export async function configureNamespace(name: string, setup: NamespaceSetup): Promise<void> {
  const settings = Object.entries(setup.sysctls).map(
    ([path, value]) => `[ ! -e /proc/sys/${path} ] || echo ${value} > /proc/sys/${path}`,
  );
  const script = ['set -e', ...settings, 'exec ip -batch -'].join('\n');
  await runTool(['nsenter', `--net=${netnsPath(name)}`, 'sh', '-c', script], `${setup.ip.join('\n')}\n`);
}

/**
 * Parameters that every namespace of a mesh has: addresses are usable at once (no duplicate address detection), nothing is
 * learnt from router advertisements, and a packet may come in by a way that its answer does not take.
 */
export const BASE_SYSCTLS: Readonly<Record<string, string>> = {
  'net/ipv6/conf/all/disable_ipv6': '0',
  'net/ipv6/conf/default/disable_ipv6': '0',
  'net/ipv6/conf/lo/disable_ipv6': '0',
  'net/ipv6/conf/default/accept_dad': '0',
  'net/ipv6/conf/default/accept_ra': '0',
  'net/ipv4/conf/all/rp_filter': '0',
  'net/ipv4/conf/default/rp_filter': '0',
};

/** The same for `eth0`, which was made before the defaults were set. */
export const ETH0_SYSCTLS: Readonly<Record<string, string>> = {
  'net/ipv6/conf/eth0/disable_ipv6': '0',
  'net/ipv6/conf/eth0/accept_dad': '0',
  'net/ipv6/conf/eth0/accept_ra': '0',
  'net/ipv4/conf/eth0/rp_filter': '0',
};

/** Parameters of a namespace that passes packets on. */
export const FORWARDING_SYSCTLS: Readonly<Record<string, string>> = {
  ...BASE_SYSCTLS,
  'net/ipv4/ip_forward': '1',
  'net/ipv6/conf/all/forwarding': '1',
  'net/ipv4/conf/all/send_redirects': '0',
  'net/ipv4/conf/default/send_redirects': '0',
};
