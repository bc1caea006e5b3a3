import { callFrom } from '#test/kit/calls.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import type { Call, Reply } from '#test/kit/programs/calls.ts';
import { echoCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml } from '#test/kit/yaml.ts';

/** Namespaces of the mesh conformance tests. */
export const MESH = 'gateway-conformance-mesh';
export const CONSUMER = 'gateway-conformance-mesh-consumer';
export const CLIENT: string = `${MESH}/echo-v1`;
export const CONSUMER_CLIENT: string = `${CONSUMER}/echo-v1`;

/** The mesh that the conformance tests of the Gateway API's mesh part start from, with a waypoint before its services. */
export interface GammaMesh extends AsyncDisposable {
  readonly mesh: Mesh;
  /** Puts routes in force in place of those before; empty: none. */
  readonly routes: (yaml: string) => void;
  /**
   * Sends requests from a workload until the check holds for their replies (it throws where not) three times in a row, as the
   * conformance tests do; within 30 s.
   */
  readonly expectReplies: (
    calls: readonly Call[],
    check: (replies: readonly Reply[]) => void,
    client?: string,
  ) => Promise<void>;
}

/** Brings it up. Closed by disposing of it. */
export async function openGammaMesh(): Promise<GammaMesh> {
  const mesh = await openMesh({ files: { 'mesh.yaml': manifests(), 'routes.yaml': '' } });
  const echo = async (namespace: string, version: string): Promise<void> => {
    const labels = { app: 'echo', version };
    const name = `echo-${version}`;
    const command = echoCommand(name, [8080, 8090], 7070);
    await mesh.run({ namespace, name, serviceAccount: name, labels, command }, true);
  };
  await Promise.all([echo(MESH, 'v1'), echo(MESH, 'v2'), echo(CONSUMER, 'v1')]);
  return {
    mesh,
    routes: (yaml) => mesh.write('routes.yaml', yaml),
    expectReplies: async (calls, check, client = CLIENT) => {
      await eventually(
        'the replies are as they should be, three times in a row',
        async () => {
          const replies = await callFrom(mesh, client, [...calls, ...calls, ...calls]);
          const each = replies.length / 3;
          for (const from of [0, each, 2 * each]) check(replies.slice(from, from + each));
          return true;
        },
        30_000,
      );
    },
    [Symbol.asyncDispose]: () => mesh[Symbol.asyncDispose](),
  };
}

/** A route of the mesh's namespace with the given spec in flow style. */
export function routeYaml(name: string, spec: string, kind = 'HTTPRoute', namespace: string = MESH): string {
  return `apiVersion: gateway.networking.k8s.io/v1
kind: ${kind}
metadata: {name: ${name}, namespace: ${namespace}}
spec: ${spec}
---
`;
}

/** A parentRef to a Service. */
export function parent(name: string, port?: number, namespace?: string): string {
  const more = [
    port === undefined ? '' : `, port: ${port}`,
    namespace === undefined ? '' : `, namespace: ${namespace}`,
  ];
  return `parentRefs: [{group: "", kind: Service, name: ${name}${more.join('')}}]`;
}

function manifests(): string {
  const ports =
    '[{name: http, port: 80, targetPort: 8080}, {name: http-alt, port: 8080, targetPort: 8080}, {name: http-second, port: 8090, targetPort: 8090}, {name: grpc, port: 7070, appProtocol: kubernetes.io/h2c}]';
  const service = (name: string, selector: string): string => `apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: ${MESH}}
spec: {selector: {${selector}}, ports: ${ports}}
---
`;
  return `${namespaceYaml(MESH, true, 'istio.io/use-waypoint: waypoint')}${namespaceYaml(CONSUMER, true)}${service('echo', 'app: echo')}${service('echo-v1', 'app: echo, version: v1')}${service('echo-v2', 'app: echo, version: v2')}apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: ${MESH}}
spec: {gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`;
}
