import { bpfError } from './errors.ts';
import { libbpf } from './libbpf.ts';

/**
 * The way to a device's egress in kernels before 6.6, which have no links for it: a filter in the queueing discipline
 * clsact. It is the device's, and stays until it is taken away or the device goes. To be called in the device's namespace.
 */

/** enum bpf_tc_attach_point of bpf/libbpf.h. */
const BPF_TC_EGRESS = 2;
const BPF_TC_F_REPLACE = 1;
/** Ours by handle; before any other filter, since those may end the list. */
const HANDLE = 0x74756c6c;
const PRIORITY = 1;
const EEXIST = 17;
const ENOENT = 2;
const EINVAL = 22;
const ENODEV = 19;

/** Adds our filter, or changes its program in place. @throws BpfError */
export function attachFilter(deviceIndex: number, program: number): void {
  const where = hook(deviceIndex);
  const made = libbpf().bpf_tc_hook_create(where);
  if (made < 0 && made !== -EEXIST) throw bpfError(`add clsact to device ${deviceIndex}`, -made);
  const attached = libbpf().bpf_tc_attach(where, filter({ program, flags: BPF_TC_F_REPLACE }));
  if (attached < 0) throw bpfError(`add an egress filter to device ${deviceIndex}`, -attached);
}

/** Takes our filter away; not there is no error. clsact itself stays: others may be using it. @throws BpfError */
export function detachFilter(deviceIndex: number): void {
  const result = libbpf().bpf_tc_detach(hook(deviceIndex), filter({ program: 0, flags: 0 }));
  if (result < 0 && ![ENOENT, EINVAL, ENODEV].includes(-result))
    throw bpfError(`remove the egress filter of device ${deviceIndex}`, -result);
}

/** Id of our filter's program; undefined when there is none. @throws BpfError */
export function filterProgram(deviceIndex: number): number | undefined {
  const options = filter({ program: 0, flags: 0 });
  const result = libbpf().bpf_tc_query(hook(deviceIndex), options);
  if ([ENOENT, EINVAL].includes(-result)) return undefined;
  if (result < 0) throw bpfError(`ask about the egress filter of device ${deviceIndex}`, -result);
  return options.readUInt32LE(16);
}

/** struct bpf_tc_hook: sz, ifindex, attach_point, parent. */
function hook(deviceIndex: number): Buffer {
  const value = Buffer.alloc(24);
  value.writeBigUInt64LE(BigInt(value.length), 0);
  value.writeInt32LE(deviceIndex, 8);
  value.writeInt32LE(BPF_TC_EGRESS, 12);
  return value;
}

/** struct bpf_tc_opts: sz, prog_fd, flags, prog_id, handle, priority. */
function filter(options: { readonly program: number; readonly flags: number }): Buffer {
  const value = Buffer.alloc(32);
  value.writeBigUInt64LE(BigInt(value.length), 0);
  value.writeInt32LE(options.program, 8);
  value.writeUInt32LE(options.flags, 12);
  value.writeUInt32LE(HANDLE, 20);
  value.writeUInt32LE(PRIORITY, 24);
  return value;
}
