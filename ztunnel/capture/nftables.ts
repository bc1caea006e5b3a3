import { execFile } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { Reason } from '#bpf/layout.ts';
import {
  type Capture,
  type CapturedPod,
  CaptureError,
  type CaptureScope,
  CONNECTION_MARK,
  nameOfPod,
} from './capture.ts';
import { countCapturedConnections } from './captured-connections.ts';
import { forgetTrackedConnections } from './connection-tracking.ts';
import { closeDescriptor, namespaceId, openNamespace, warmThreadPool } from './in-pod-sockets.ts';
import { NativeError, withinNamespace } from './native.ts';
import {
  REFUSED_INBOUND,
  REFUSED_OUTBOUND,
  REMOVE_RULES,
  ROUTE_RULE_PREFERENCE,
  ROUTE_TABLE,
  rulesOf,
  scopeIn,
  TABLE,
} from './rules.ts';

const COMMAND_TIMEOUT_MS = 10_000;

/**
 * Settings of the pod's namespace, each left alone where the kernel does not have it:
 * - a connection that waits in the queue of a ztunnel that stops is moved to the listener of the one beside it;
 * - a packet outside of the window is translated as well, instead of reaching the application's kernel as a stray that
 *   gets its connection reset;
 * - ended connections, two for each that passes through a ztunnel, leave the kernel's table, which all namespaces of a
 *   machine share, after 30 s instead of 120 s.
 */
const SETTINGS: ReadonlyMap<string, string> = new Map([
  ['/proc/sys/net/ipv4/tcp_migrate_req', '1'],
  ['/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal', '1'],
  ['/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait', '30'],
]);

/**
 * Capture by packet rules in the pod's namespace, as ambient's own: see rules.ts. Needs `nft` (nftables), `ip`
 * (iproute2) and `nsenter` (util-linux), and root.
 */
export function createNftablesCapture(): Capture {
  /** Pods whose namespace has its routes and settings, by uid, with the namespace. */
  const prepared = new Map<string, string>();
  return {
    method: 'nftables',
    apply: (pod, scope) => applyRules(pod, scope, prepared),
    scopeOf: async (pod) => (existsSync(pod.netnsPath) ? scopeIn(await listTable(pod)) : undefined),
    countCaptured: async (pod) => {
      await warmThreadPool();
      return inNamespaceOf(pod, (fd) => countCapturedConnections(fd, 'nftables')) ?? 0;
    },
    counters: countRefused,
    remove: async (pod) => {
      prepared.delete(pod.uid);
      await removeRules(pod);
    },
  };
}

async function applyRules(
  pod: CapturedPod,
  scope: CaptureScope,
  prepared: Map<string, string>,
): Promise<void> {
  await warmThreadPool();
  const namespace = inNamespaceOf(pod, namespaceId) ?? '';
  const isPrepared = prepared.get(pod.uid) === namespace;
  if (!isPrepared) {
    const families = inNamespaceOf(pod, usableFamilies) ?? [];
    await Promise.all(families.map((family) => addReturnRoute(pod, family)));
  }
  await runIn(pod, 'nft', ['-f', '-'], rulesOf({ scope, udp: pod.udp, probes: pod.probes }));
  if (isPrepared) return;
  inNamespaceOf(pod, writeSettings); // some of them are only there with the rules
  prepared.set(pod.uid, namespace);
}

/** Empty when there is no table. */
async function listTable(pod: CapturedPod): Promise<string> {
  return await runIn(pod, 'nft', ['list', 'table', 'inet', TABLE], '', /No such file or directory/);
}

async function removeRules(pod: CapturedPod): Promise<void> {
  if (!existsSync(pod.netnsPath)) return;
  await runIn(pod, 'nft', ['-f', '-'], REMOVE_RULES);
  const batch = `rule del ${RETURN_RULE.join(' ')}\nroute flush table ${ROUTE_TABLE}\n`;
  const missing = /No such file|does not exist|not supported/;
  await Promise.all(
    ['-4', '-6'].map((family) => runIn(pod, 'ip', [family, '-force', '-batch', '-'], batch, missing)),
  );
  inNamespaceOf(pod, tryForgetConnections);
}

/** Best effort: where the kernel cannot, entries are forgotten by and by. */
function tryForgetConnections(netnsFd: number): void {
  try {
    forgetTrackedConnections(netnsFd);
  } catch (error) {
    if (!(error instanceof NativeError)) throw error;
  }
}

const RETURN_RULE: readonly string[] = [
  ...['fwmark', `0x${CONNECTION_MARK.toString(16)}/0xfff`],
  ...['pref', `${ROUTE_RULE_PREFERENCE}`, 'lookup', `${ROUTE_TABLE}`],
];

/** Has replies to the addresses that the ztunnel spoofed delivered here instead of leaving the pod. */
async function addReturnRoute(pod: CapturedPod, family: '-4' | '-6'): Promise<void> {
  const everything = family === '-4' ? '0.0.0.0/0' : '::/0';
  const route = `route replace local ${everything} dev lo table ${ROUTE_TABLE}`;
  const batch = `${route}\nrule add ${RETURN_RULE.join(' ')}\n`;
  await runIn(pod, 'ip', [family, '-batch', '-'], batch, /File exists/);
}

async function countRefused(pod: CapturedPod): Promise<ReadonlyMap<Reason, number>> {
  if (!existsSync(pod.netnsPath)) return new Map();
  const text = await runIn(pod, 'nft', ['list', 'counters', 'table', 'inet', TABLE]);
  const packets = (name: string): number =>
    Number(new RegExp(`counter ${name} \\{\\s*packets (\\d+)`).exec(text)?.[1] ?? 0);
  return new Map([
    ['udp_inbound', packets(REFUSED_INBOUND)],
    ['udp_outbound', packets(REFUSED_OUTBOUND)],
  ]);
}

function usableFamilies(netnsFd: number): readonly ('-4' | '-6')[] {
  const path = '/proc/sys/net/ipv6/conf/lo/disable_ipv6';
  const ipv6 = withinNamespace(
    netnsFd,
    () => existsSync(path) && readFileSync(path, 'latin1').trim() === '0',
  );
  return ipv6 ? ['-4', '-6'] : ['-4'];
}

function writeSettings(netnsFd: number): void {
  withinNamespace(netnsFd, () => {
    for (const [path, value] of SETTINGS) if (existsSync(path)) writeFileSync(path, value);
  });
}

/** Undefined when the pod's namespace is gone. */
function inNamespaceOf<T>(pod: CapturedPod, work: (netnsFd: number) => T): T | undefined {
  if (!existsSync(pod.netnsPath)) return undefined;
  const netnsFd = openNamespace(pod.netnsPath);
  try {
    return work(netnsFd);
  } finally {
    closeDescriptor(netnsFd);
  }
}

/**
 * Runs a command in the pod's namespace; its standard output.
 * @param harmless what a failure may say and still be none
 */
function runIn(
  pod: CapturedPod,
  command: 'nft' | 'ip',
  args: readonly string[],
  input = '',
  harmless?: RegExp,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const argv = [`--net=${pod.netnsPath}`, command, ...args];
    const child = execFile('nsenter', argv, { timeout: COMMAND_TIMEOUT_MS }, (cause, stdout, stderr) => {
      if (cause === null || harmless?.test(stderr)) return resolve(stdout);
      const said = stderr.trim() || cause.message;
      return reject(new CaptureError(explain(pod, `${command} ${args.join(' ')}`, said), { cause }));
    });
    child.stdin?.on('error', () => undefined); // it ended before it read its input; its exit code tells
    child.stdin?.end(input);
  });
}

function explain(pod: CapturedPod, command: string, said: string): string {
  return `packet rules of pod ${nameOfPod(pod)}: "${command}" in ${pod.netnsPath} failed: ${said}. ${remedy(said)}`;
}

function remedy(said: string): string {
  if (/ENOENT|failed to execute/.test(said)) return 'Install nftables, iproute2 and util-linux.';
  if (/not permitted|Permission denied/.test(said)) return 'The node agent has to run as root.';
  if (/No such file/.test(said) && /nsenter/.test(said)) return 'The pod is gone.';
  return 'The rules that were in force are unchanged; "nft list ruleset" there shows them.';
}
