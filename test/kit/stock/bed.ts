import { join } from 'node:path';
import { type Mesh, openMesh, type WorkloadStatus } from '../mesh.ts';
import { serverCommand } from '../programs/programs.ts';
import { namespaceYaml, serviceYaml } from '../yaml.ts';
import { type StockZtunnel, startStockZtunnel } from './player.ts';

/** A mesh with a node of its own, `n1`, and an external one, `n3`, in which a stock ztunnel is played. */
export interface StockBed extends AsyncDisposable {
  readonly mesh: Mesh;
  /** The one that was started last. */
  readonly stock: () => StockZtunnel;
  /** Starts another one beside those that run; resolves when it knows its pods. */
  readonly startStock: () => Promise<StockZtunnel>;
  /** On n3, in namespace `depot`: a server (service `store`) and a caller. */
  readonly store: WorkloadStatus;
  readonly picker: WorkloadStatus;
  /** On n1, in namespace `shop`: a server (service `catalog`) and a caller. */
  readonly catalog: WorkloadStatus;
  readonly web: WorkloadStatus;
  /** On n1, in namespace `outside`, not in the mesh. */
  readonly outsider: WorkloadStatus;
}

/**
 * Brings it up, with `depot.yaml` holding the namespace `depot` alone; all of it ends with the bed.
 * @param flags further ones of `tulle up`
 */
export async function openStockBed(flags: readonly string[] = []): Promise<StockBed> {
  const namespaces = namespaceYaml('shop', true) + namespaceYaml('outside', false);
  const mesh = await openMesh({
    files: {
      'mesh.yaml': namespaces + serviceYaml('shop', 'catalog') + serviceYaml('depot', 'store'),
      'depot.yaml': namespaceYaml('depot', true),
    },
    flags: ['--nodes', 'n1', '--external-node', 'n3', ...flags],
  });
  const started: StockZtunnel[] = [];
  const dispose = async (): Promise<void> => {
    await Promise.all(started.map((stock) => stock.stop()));
    await mesh[Symbol.asyncDispose]();
  };
  const startStock = async (): Promise<StockZtunnel> => {
    const { nodes } = await mesh.status();
    const { netns = '' } = nodes.find(({ name }) => name === 'n3') ?? {};
    const stock = startStockZtunnel(netns, join(mesh.state, 'run', 'n3', 'ztunnel.env'));
    started.push(stock);
    await stock.until('ready');
    return stock;
  };
  try {
    let stock = await startStock();
    const workloads = await runWorkloads(mesh);
    return {
      mesh,
      ...workloads,
      stock: () => stock,
      startStock: async () => {
        stock = await startStock();
        return stock;
      },
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

type Workloads = Pick<StockBed, 'store' | 'picker' | 'catalog' | 'web' | 'outsider'>;

async function runWorkloads(mesh: Mesh): Promise<Workloads> {
  const idle = ['sleep', 'infinity'];
  const run = (
    [namespace, name]: readonly [string, string],
    node: string,
    command: readonly string[] = idle,
  ): Promise<WorkloadStatus> => {
    const serviceAccount = name.replace(/-1$/, '');
    const labels = { app: serviceAccount };
    const isInMesh = namespace !== 'outside';
    return mesh.run({ namespace, name, serviceAccount, node, labels, command }, isInMesh);
  };
  // One after another: the order in which the node agent tells of them is looked at.
  return {
    store: await run(['depot', 'store-1'], 'n3', serverCommand('store-1')),
    picker: await run(['depot', 'picker-1'], 'n3'),
    catalog: await run(['shop', 'catalog-1'], 'n1', serverCommand('catalog-1')),
    web: await run(['shop', 'web-1'], 'n1'),
    outsider: await run(['outside', 'outsider-1'], 'n1'),
  };
}
