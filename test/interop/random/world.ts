import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import type { Case } from '../case.ts';
import { OBJECTS } from '../objects.ts';
import { callNear, grpcRoute, type WrittenGrpcRoute } from './calls.ts';
import { requestNear } from './requests.ts';
import { httpRoutes, type WrittenRoute } from './routes.ts';

/** A service with its routes, and how to ask it. */
export interface RandomService {
  readonly name: string;
  readonly routes: readonly (WrittenRoute | WrittenGrpcRoute)[];
  readonly requests: fc.Arbitrary<Case>;
}

/** Of so many services some have mirrors, some routes of gRPC. */
const MIRROR_EVERY = 10;
const GRPC_EVERY = 8;

/** Services with routes; the same for the same seed. */
export function randomServices(seed: number, count: number): readonly RandomService[] {
  return Array.from({ length: count }, (_, index) => randomService(index, seed * 1000 + index));
}

function randomService(index: number, seed: number): RandomService {
  const name = `random-${index}`;
  const sample = <T>(of: fc.Arbitrary<T>): T => {
    const [first] = fc.sample(of, { seed, numRuns: 1 });
    if (first === undefined) throw new TypeError('nothing was made');
    return first;
  };
  if (index % GRPC_EVERY === GRPC_EVERY - 1) {
    const route = sample(grpcRoute);
    return { name, routes: [route], requests: callNear(name) };
  }
  const mayMirror = index % MIRROR_EVERY === MIRROR_EVERY - 1;
  const routes = sample(httpRoutes(mayMirror));
  return { name, routes, requests: requestNear(name, routes, mayMirror ? ['mirror-1', 'mirror-2'] : []) };
}

/** Writes the folder that the control plane reads: those services with their routes, and the applications of the table. */
export function writeObjects(folder: string, services: readonly RandomService[]): void {
  mkdirSync(folder, { recursive: true });
  for (const file of ['applications.yaml', 'mesh.yaml']) cpSync(join(OBJECTS, file), join(folder, file));
  const documents = services.flatMap((service, index) => [serviceOf(service, index), ...routesOf(service)]);
  // JSON is YAML.
  const text = documents.map((document) => JSON.stringify(document, undefined, 1)).join('\n---\n');
  writeFileSync(join(folder, 'random.yaml'), text);
}

function serviceOf({ name, routes }: RandomService, index: number): unknown {
  const isGrpc = routes.some(({ kind }) => kind === 'GRPCRoute');
  const protocol = isGrpc ? 'grpc' : 'http';
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'interop' },
    spec: {
      clusterIP: `10.77.4.${index + 1}`,
      ports: [
        { name: protocol, port: 80 },
        { name: `${protocol}-more`, port: 8080 },
      ],
    },
  };
}

function routesOf({ name, routes }: RandomService): readonly unknown[] {
  return routes.map((route, index) => {
    const port = 'port' in route ? { port: route.port } : {};
    return {
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: route.kind,
      metadata: { name: `${name}-${index}`, namespace: 'interop' },
      spec: { parentRefs: [{ group: '', kind: 'Service', name, ...port }], rules: route.rules },
    };
  });
}
