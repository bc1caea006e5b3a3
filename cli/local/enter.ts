import { join } from 'node:path';
import { usageError } from '../cli-error.ts';
import { inCgroup } from './cgroups.ts';
import { netnsPath } from './network-namespace.ts';
import type { User } from './users.ts';

/** What it takes to run something in a workload's place. */
export interface Enclosure {
  /** Name of its network namespace. */
  readonly netns: string;
  readonly cgroup: string;
  readonly user: User;
  /** Capabilities beside NET_BIND_SERVICE, as setpriv names them: `net_raw`. */
  readonly capabilities: readonly string[];
}

/** The one capability of every workload: ports below 1024. */
export const BASE_CAPABILITY: 'net_bind_service' = 'net_bind_service';

/** Command line of the first process of a workload (see pod-init.sh). It dies with the process that starts it. */
export function initCommand(
  enclosure: Enclosure,
  files: { readonly state: string; readonly resolver: string },
): readonly string[] {
  const script = join(import.meta.dirname, 'pod-init.sh');
  return inCgroup(enclosure.cgroup, [
    ...['setpriv', '--pdeathsig', 'KILL', 'nsenter', `--net=${netnsPath(enclosure.netns)}`],
    ...['unshare', '--mount', 'sh', script, files.state, files.resolver],
  ]);
}

/**
 * Command line of a command inside a workload whose first process is `initPid`: its network, mounts and cgroup, as its user,
 * without capabilities and without a way to get any. The PID namespace is the starting process's business (see
 * pid-namespace.ts).
 */
export function enterCommand(
  enclosure: Enclosure,
  initPid: number,
  workingDirectory: string,
  command: readonly string[],
): readonly string[] {
  const { user, capabilities } = enclosure;
  const allowed = ['-all', ...[BASE_CAPABILITY, ...capabilities].map((name) => `+${name}`)].join(',');
  return inCgroup(enclosure.cgroup, [
    ...['nsenter', `--net=${netnsPath(enclosure.netns)}`, `--mount=/proc/${initPid}/ns/mnt`],
    ...['setpriv', '--pdeathsig', 'KILL', '--reuid', `${user.uid}`, '--regid', `${user.gid}`],
    ...(/^\d+$/.test(user.name) ? ['--clear-groups'] : ['--init-groups']),
    `--inh-caps=${allowed}`,
    `--ambient-caps=${allowed}`,
    `--bounding-set=${allowed}`,
    '--no-new-privs',
    ...['sh', '-c', 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"', 'tulle', workingDirectory, ...command],
  ]);
}

/**
 * Whether a command has to be kept from the terminal that controls this process: with TIOCSTI it could type into it, and the
 * caller's shell would run that. `setting` is what /proc/sys/dev/tty/legacy_tiocsti holds: `0` forbids TIOCSTI; kernels
 * without it (undefined) allow it always.
 */
export function needsOwnSession(hasTerminal: boolean, setting: string | undefined): boolean {
  return hasTerminal && setting?.trim() !== '0';
}

/** Environment of a command that runs as somebody else than who started it. */
export function environmentOf(user: User, env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  if (process.getuid?.() === user.uid && env['SUDO_USER'] === undefined) return env;
  return { ...env, HOME: user.home, USER: user.name, LOGNAME: user.name, SHELL: user.shell };
}

/** Capabilities that Linux has: `chown` … `checkpoint_restore`. */
const CAPABILITIES: ReadonlySet<string> = new Set(
  (
    'chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service ' +
    'net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin ' +
    'sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override ' +
    'mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore'
  ).split(' '),
);

/**
 * Reads the name of a capability, as `CAP_NET_RAW`, `NET_RAW` or `net_raw`.
 * @throws CliError (usage)
 */
export function parseCapability(text: string): string {
  const name = text.toLowerCase().replace(/^cap_/, '');
  if (CAPABILITIES.has(name)) return name;
  throw usageError(`--cap-add ${JSON.stringify(text)}: there is no such capability (an example: NET_RAW)`);
}
