import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { subscribeWorkloadApi } from '#api/client.ts';
import type { SubscriptionState } from '#api/delta-client.ts';
import { type Resource, type ResourceUpdate, resourceName } from '#api/resource.ts';
import type { Identity } from '#certs/identity.ts';
import { createSignerClient, type SignerClient } from '#certs/signer-client.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';
import { type ControlPlaneConfig, parseControlPlaneConfig } from './config.ts';
import { type ControlPlane, openControlPlane } from './main.ts';
import { tokenOf } from './serve/testing.ts';
import type { ControlPlaneStatus } from './status.ts';

const MESH = namespaceYaml('shop', true) + serviceYaml('shop', 'cart');

interface TestClient extends AsyncDisposable {
  readonly held: ReadonlyMap<string, Resource>;
  readonly updates: ResourceUpdate[];
  readonly states: readonly SubscriptionState[];
}

/** A state folder, what the control planes that run on it say, and clients of theirs. */
export interface TestState extends AsyncDisposable {
  readonly directory: string;
  readonly config: ControlPlaneConfig;
  readonly write: (file: string, yaml: string) => void;
  readonly remove: (file: string) => void;
  readonly writePod: (namespace: string, name: string, pod: { node: string; serviceAccount: string }) => void;
  readonly open: (port?: number) => Promise<ControlPlane>;
  readonly get: <T>(path: string) => Promise<T>;
  readonly status: () => Promise<ControlPlaneStatus>;
  readonly subscribe: (controlPlane: ControlPlane, node: string) => TestClient;
  readonly signer: (controlPlane: ControlPlane, node: string) => SignerClient & Disposable;
}

/** A state folder with nodes n1 and n2, and a folder of YAML with {@link MESH}. */
export function openState(): TestState {
  const root = mkdtempSync(join(tmpdir(), 'tulle-cp-'));
  const directory = join(root, 'state');
  const folder = join(root, 'mesh');
  for (const path of [folder, ...['tokens', 'pods', 'nodes'].map((name) => join(directory, name))]) {
    mkdirSync(path, { recursive: true });
  }
  for (const node of ['n1', 'n2']) writeFileSync(join(directory, 'tokens', node), tokenOf(node));
  const replace = (path: string, text: string): void => {
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
  };
  replace(join(folder, 'mesh.yaml'), MESH);
  const flags = [
    '--state',
    directory,
    '-f',
    folder,
    '--listen',
    '127.0.0.1:0',
    '--svid-ttl',
    '1h',
    '--nodes',
    'n1,n2',
  ];
  const config = parseControlPlaneConfig(flags, {});
  const rootsPem = (): string => readFileSync(join(directory, 'ca/bundle.pem'), 'utf8');
  const get = <T>(path: string): Promise<T> =>
    getJson(join(directory, 'run/control-plane.sock'), path) as Promise<T>;
  return {
    directory,
    config,
    write: (file, yaml) => replace(join(folder, file), yaml),
    remove: (file) => rmSync(join(folder, file)),
    writePod: (namespace, name, pod) => {
      replace(join(directory, 'pods', `${namespace}_${name}.redirection`), 'enabled');
      replace(
        join(directory, 'pods', `${namespace}_${name}.json`),
        JSON.stringify(podObject(namespace, name, pod)),
      );
    },
    open: (port = 0) => openControlPlane({ ...config, listen: { ip: '127.0.0.1', port } }, silent()),
    get,
    status: () => get<ControlPlaneStatus>('/status'),
    subscribe: ({ port }, node) => subscribe(`https://127.0.0.1:${port}`, node, rootsPem),
    signer: ({ port }, node) => {
      const client = createSignerClient({
        address: `https://127.0.0.1:${port}`,
        rootsPem,
        headers: async () => ({ authorization: `Bearer ${tokenOf(node)}` }),
      });
      return { ...client, [Symbol.dispose]: () => client.close() };
    },
    [Symbol.asyncDispose]: async () => rmSync(root, { recursive: true, force: true }),
  };
}

function subscribe(address: string, node: string, rootsPem: () => string): TestClient {
  const held = new Map<string, Resource>();
  const updates: ResourceUpdate[] = [];
  const states: SubscriptionState[] = [];
  const abort = new AbortController();
  const running = subscribeWorkloadApi({
    address,
    rootsPem,
    headers: () => ({ authorization: `Bearer ${tokenOf(node)}`, clusterid: 'Kubernetes' }),
    node: { ip: '10.240.0.11', podName: `ztunnel-${node}`, podNamespace: 'istio-system', nodeName: node },
    onUpdate: (update) => {
      updates.push(update);
      for (const resource of update.updated) held.set(resourceName(resource), resource);
      for (const name of update.removed) held.delete(name);
    },
    onState: (state) => states.push(state),
    logger: silent(),
    signal: abort.signal,
  });
  return {
    held,
    updates,
    states,
    [Symbol.asyncDispose]: async () => {
      abort.abort();
      await running;
    },
  };
}

function podObject(namespace: string, name: string, pod: { node: string; serviceAccount: string }): unknown {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, uid: `uid-of-${name}`, labels: { app: 'cart' } },
    spec: { serviceAccountName: pod.serviceAccount, nodeName: pod.node, containers: [{ name: 'main' }] },
    status: {
      phase: 'Running',
      podIPs: [{ ip: '10.244.1.2' }, { ip: 'fd00:10:244:1::2' }],
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  };
}

async function getJson(socketPath: string, path: string): Promise<unknown> {
  const sent = request({ socketPath, path });
  sent.end();
  const [response] = (await once(sent, 'response')) as [AsyncIterable<Buffer>];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString());
}

/** Of `cluster.local`. */
export function identity(namespace: string, serviceAccount: string): Identity {
  return { trustDomain: 'cluster.local', namespace, serviceAccount };
}

/** A logger that says nothing. */
export function silent(): pino.Logger {
  return pino({ level: 'silent' });
}
