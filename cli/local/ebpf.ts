import { join } from 'node:path';
import { BPFFS } from '#bpf/pins.ts';
import { ensureBpffs } from '#bpf/programs.ts';
import { cgroupRoot } from './cgroups.ts';

/** Where capture by eBPF has its place on this host. */
export interface EbpfPlace {
  /** Pins of programs and maps: of this mesh alone. */
  readonly directory: string;
  /** Above every process of the mesh and its workloads. */
  readonly cgroup: string;
}

/** The place of a mesh, whether or not anything is there. */
export function ebpfPlace(mesh: string): EbpfPlace {
  return { directory: join(BPFFS, 'tulle', mesh), cgroup: cgroupRoot(mesh) };
}

/**
 * Mounts a file system for pins unless there is one. Why that cannot be, undefined when it is there; node agents then find
 * out by themselves that it is not.
 */
export function prepareBpffs(): string | undefined {
  try {
    ensureBpffs();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
