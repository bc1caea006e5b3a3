/**
 * A node agent's first step in a process of its own: `node bpf-install.ts DIRECTORY CGROUP`. Prints a blank when it is ready,
 * installs the programs as soon as its standard input ends, and prints an {@link InstallReport}.
 */
import { readdirSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { BpfError, BpfUnsupportedError } from '#bpf/errors.ts';
import { ensureBpffs, installMesh } from '#bpf/programs.ts';
import type { InstallReport } from '#test/kit/bpf-bed.ts';
import { warmThreadPool } from '#ztunnel/capture/in-pod-sockets.ts';

await warmThreadPool();
process.stdout.write(' ');
await text(process.stdin);
console.log(JSON.stringify(install(process.argv[2] ?? '', process.argv[3] ?? '')));

function install(directory: string, cgroup: string): InstallReport {
  try {
    ensureBpffs();
    const before = readdirSync('/proc/self/fd').length;
    const mesh = installMesh({ directory, cgroup });
    const { egress } = mesh;
    mesh.close();
    return { egress, descriptors: readdirSync('/proc/self/fd').length - before };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof BpfUnsupportedError) return { error: error.name, feature: error.feature, message };
    return { error: 'Error', ...(error instanceof BpfError && { code: error.code }), message };
  }
}
