import { type Command, Option } from 'commander';
import { parseControlPlaneConfig } from '#control-plane/config.ts';
import { usageError } from '../cli-error.ts';
import { checkName } from '../local/names.ts';
import { checkNodeName } from '../local/node-files.ts';
import { runMesh } from '../local/run-mesh.ts';
import { collect, requireRoot, stateOption } from './options.ts';

interface UpFlags {
  readonly state: string;
  readonly file?: readonly string[];
  readonly nodes: string;
  readonly externalNode?: readonly string[];
  readonly svidTtl: string;
  readonly capture: 'auto' | 'ebpf' | 'nftables';
}

export function registerUp(program: Command): void {
  program
    .command('up')
    .description('run the mesh in the foreground; Ctrl-C drains and ends it')
    .addOption(stateOption())
    .addOption(
      new Option(
        '-f, --file <path>',
        'file or folder of YAML, read again when it changes; may be repeated',
      ).argParser(collect),
    )
    .option('--nodes <a,b>', 'nodes of the mesh', 'n1,n2')
    .addOption(
      new Option(
        '--external-node <node>',
        'a node whose ztunnel somebody else starts; may be repeated',
      ).argParser(collect),
    )
    .option('--svid-ttl <duration>', "life of the workloads' certificates", '24h')
    .addOption(
      new Option('--capture <how>', 'how workloads are captured; auto: by eBPF where that can be')
        .choices(['auto', 'ebpf', 'nftables'])
        .default('auto'),
    )
    .action(async (flags: UpFlags) => {
      const names = flags.nodes.split(',').map((name) => checkNodeName(checkName('--nodes', name.trim())));
      const external = (flags.externalNode ?? []).map((name) =>
        checkNodeName(checkName('--external-node', name)),
      );
      if (new Set([...names, ...external]).size < names.length + external.length) {
        throw usageError('a node is named twice');
      }
      parseControlPlaneConfig(['--svid-ttl', flags.svidTtl], {});
      requireRoot('tulle up');
      await runMesh({
        stateDirectory: flags.state,
        files: flags.file ?? [],
        svidTtl: flags.svidTtl,
        capture: flags.capture,
        nodes: [
          ...names.map((name) => ({ name, external: false })),
          ...external.map((name) => ({ name, external: true })),
        ],
      });
    });
}
