import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { parseControlPlaneConfig } from '#control-plane/config.ts';
import { type ControlPlane, openControlPlane } from '#control-plane/main.ts';
import type { PodInfo } from '#ztunnel/worker-messages.ts';
import { serveZds, type ZdsServer } from '#ztunnel/zds/server.ts';
import { createNetns, type Netns } from './netns.ts';
import { namespaceYaml, serviceYaml } from './yaml.ts';

const logger = pino({ level: 'silent' });
const TOKEN = Buffer.alloc(32, 7).toString('base64url');
/** The pod of the bed. */
export const POD: PodInfo = {
  uid: 'uid-of-cart-1',
  name: 'cart-1',
  namespace: 'shop',
  serviceAccount: 'cart',
};

/** A node with a control plane and a node agent, and a pod `shop/cart-1` in a namespace of its own. */
export interface ZtunnelBed extends AsyncDisposable {
  readonly pod: Netns;
  readonly controlPlane: ControlPlane;
  readonly agent: ZdsServer;
  readonly state: string;
  readonly port: number;
}

/** Makes the bed. No ztunnel runs in it yet. Needs root. */
export async function makeZtunnelBed(): Promise<ZtunnelBed> {
  const state = mkdtempSync(join(tmpdir(), 'tulle-zt-'));
  for (const folder of ['tokens', 'pods', 'nodes', 'mesh', 'run/n1']) {
    mkdirSync(join(state, folder), { recursive: true });
  }
  writeFileSync(join(state, 'tokens/n1'), TOKEN);
  writeFileSync(join(state, 'mesh/mesh.yaml'), namespaceYaml('shop', true) + serviceYaml('shop', 'cart'));
  writeFileSync(join(state, 'pods/shop_cart-1.redirection'), 'enabled');
  writeFileSync(join(state, 'pods/shop_cart-1.json'), JSON.stringify(podObject()));
  const flags = ['--state', state, '-f', join(state, 'mesh'), '--listen', '127.0.0.1:0', '--nodes', 'n1'];
  const controlPlane = await openControlPlane(parseControlPlaneConfig(flags, {}), logger);
  const pod = await createNetns('ztunnel-pod');
  const agent = await serveZds({
    path: join(state, 'run/n1/zds.sock'),
    snapshot: () => [{ pod: POD, netnsPath: pod.path }],
    onChange: () => undefined,
    onRefused: () => undefined,
    logger,
  });
  return {
    ...{ pod, controlPlane, agent, state, port: controlPlane.port },
    [Symbol.asyncDispose]: async () => {
      agent.close();
      await controlPlane[Symbol.asyncDispose]();
      await pod.remove();
      rmSync(state, { recursive: true });
    },
  };
}

function podObject(): unknown {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: POD.name, namespace: POD.namespace, uid: POD.uid, labels: { app: 'cart' } },
    spec: { serviceAccountName: 'cart', nodeName: 'n1', containers: [{ name: 'main' }] },
    status: {
      phase: 'Running',
      podIPs: [{ ip: '10.244.1.2' }, { ip: 'fd00:10:244:1::2' }],
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  };
}

/** Asks the resolver inside the pod, as an application would after redirection. */
export async function resolveInPod(
  pod: Netns,
  server: string,
  name: string,
  type: 'A' | 'AAAA',
): Promise<unknown> {
  const script = `const r = new (require('node:dns').promises.Resolver)({ timeout: 2000, tries: 1 });
    r.setServers(['${server}:15053']);
    r.resolve('${name}', '${type}').then((a) => console.log(JSON.stringify(a)), (e) => console.log(JSON.stringify(e.code)))`;
  return JSON.parse(await pod.exec(process.execPath, ['-e', script]));
}

/** Ports of the mesh on which somebody listens in the pod. */
export async function listeningPorts(pod: Netns): Promise<readonly string[]> {
  const listed = await pod.exec('ss', ['-Hlntu']);
  return [...new Set([...listed.matchAll(/:(15\d{3})\s/g)].map(([, port = '']) => port))].toSorted();
}
