import { readFileSync } from 'node:fs';
import { formatHostPort, type HostPort, type Ip } from '#api/address.ts';
import { descriptorLimit, hasCode, NativeError, withinNamespace } from './capture/native.ts';

/** Ports, descriptors or memory have run out; the message says which, of whom, how many there are, and what helps. */
export class ExhaustedError extends Error {
  override readonly name = 'ExhaustedError';
  /**
   * The system call's: EADDRNOTAVAIL for ports; EMFILE for descriptors of the process, ENFILE of the machine; ENOMEM and ENOBUFS for
   * memory of the kernel. POD_SOCKETS: a pod has as many as one may have.
   */
  readonly code: 'EADDRNOTAVAIL' | 'EMFILE' | 'ENFILE' | 'ENOMEM' | 'ENOBUFS' | 'POD_SOCKETS';

  constructor(message: string, code: ExhaustedError['code'], cause: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

/** A connection that was to be made. */
export interface Attempt {
  /** Who makes it: `pod shop/web`. */
  readonly from: string;
  /** Where its socket is. */
  readonly netnsFd: number | undefined;
  readonly sourceIp?: Ip;
  readonly to: HostPort;
}

/** The error by its name if it says that something has run out, else as it is. */
export function explainExhaustion(error: Error, attempt: Attempt): Error {
  // To bind to an address that is not there gives the same; that is a call of ours.
  if (hasCode(error, 'EADDRNOTAVAIL') && !(error instanceof NativeError)) {
    return new ExhaustedError(portsMessage(attempt), 'EADDRNOTAVAIL', error);
  }
  const what = `no connection of ${attempt.from} to ${formatHostPort(attempt.to)} can be made`;
  for (const code of MEMORY) {
    if (hasCode(error, code)) return new ExhaustedError(`${what}: ${KERNEL_MEMORY}`, code, error);
  }
  const descriptors = exhaustedDescriptors(error);
  if (descriptors === undefined) return error;
  return new ExhaustedError(`${what}: ${descriptors}`, hasCode(error, 'EMFILE') ? 'EMFILE' : 'ENFILE', error);
}

const MEMORY = ['ENOMEM', 'ENOBUFS'] as const;
const KERNEL_MEMORY = 'the kernel has no memory for it; see net.ipv4.tcp_mem, and what the cgroup may have';

/** Whose descriptors have run out, and what helps; undefined when the error says nothing of the kind. */
export function exhaustedDescriptors(error: unknown): string | undefined {
  if (hasCode(error, 'EMFILE')) {
    return `all ${descriptorLimit()} descriptors of this process are in use; raise its limit of open files`;
  }
  if (hasCode(error, 'ENFILE')) return 'all descriptors of the machine are in use; raise fs.file-max';
  return undefined;
}

const RANGE = '/proc/sys/net/ipv4/ip_local_port_range';

function portsMessage({ from, netnsFd, sourceIp, to }: Attempt): string {
  const source = sourceIp === undefined ? '' : ` from ${sourceIp}`;
  const [first, last] = portRange(netnsFd);
  const count = first === undefined || last === undefined ? '' : ` ${last - first + 1} (${first} to ${last})`;
  return (
    `${from} has no port left for connections${source} to ${formatHostPort(to)}: all${count} are in use or closing; ` +
    'widen net.ipv4.ip_local_port_range there, or keep connections open instead of making new ones'
  );
}

/** Both for IPv4 and for IPv6; nothing when it cannot be read now. */
function portRange(netnsFd: number | undefined): readonly number[] {
  try {
    const text = withinNamespace(netnsFd, () => readFileSync(RANGE, 'latin1'));
    return text.trim().split(/\s+/).map(Number);
  } catch {
    return [];
  }
}
