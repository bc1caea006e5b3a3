import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';
import type { Application } from './stage/applications.ts';

/** The folder that the control plane reads. */
export const OBJECTS: string = join(import.meta.dirname, 'objects');

/** A port of a service, as callers of one namespace or of all see it. */
export interface Frontend {
  readonly service: string;
  readonly host: string;
  readonly vip: string;
  readonly port: number;
  /** Name of its RouteConfiguration. */
  readonly route: string;
  /** Namespace whose callers have routes of their own here. */
  readonly consumer?: string;
}

/** What the harness has to know of the objects. */
export interface InteropObjects {
  readonly applications: readonly Application[];
  readonly frontends: readonly Frontend[];
  /** Addresses whose packets are lost. */
  readonly holes: readonly string[];
}

const metadata = z.object({
  name: z.string(),
  namespace: z.string(),
  labels: z.record(z.string(), z.string()).default({}),
});
const pod = z.object({
  kind: z.literal('Pod'),
  metadata,
  spec: z.object({
    containers: z.array(z.object({ ports: z.array(z.object({ containerPort: z.number() })) })),
  }),
  status: z.object({ podIP: z.string() }),
});
const service = z.object({
  kind: z.literal('Service'),
  metadata,
  spec: z.object({ clusterIP: z.string(), ports: z.array(z.object({ name: z.string(), port: z.number() })) }),
});
const route = z.object({
  kind: z.enum(['HTTPRoute', 'GRPCRoute']),
  metadata,
  spec: z.object({ parentRefs: z.array(z.object({ name: z.string(), namespace: z.string().optional() })) }),
});

/** Reads the folder. */
export function readObjects(folder: string = OBJECTS): InteropObjects {
  const documents = globSync('*.yaml', { cwd: folder }).flatMap((file) =>
    parseAllDocuments(readFileSync(join(folder, file), 'utf8')).map((document): unknown => document.toJS()),
  );
  const of = <T>(schema: z.ZodType<T>): readonly T[] =>
    documents
      .map((document) => schema.safeParse(document))
      .flatMap(({ data }) => (data === undefined ? [] : [data]));
  const pods = of(pod);
  const consumers = of(route).flatMap(({ metadata: { namespace }, spec }) =>
    spec.parentRefs
      .filter((parent) => parent.namespace !== undefined && parent.namespace !== namespace)
      .map(({ name }) => ({ service: name, namespace })),
  );
  const frontends = of(service)
    .filter((object) => object.metadata.namespace === 'interop')
    .flatMap((object) => frontendsOf(object, consumers));
  return {
    applications: pods.flatMap(applicationOf),
    frontends,
    holes: pods.filter(isHole).map(({ status }) => status.podIP),
  };
}

function isHole({ metadata: { labels } }: z.infer<typeof pod>): boolean {
  return labels['serve'] === 'hole';
}

function applicationOf({ metadata: { labels }, spec, status }: z.infer<typeof pod>): readonly Application[] {
  const { app = '', serve } = labels;
  const port = spec.containers[0]?.ports[0]?.containerPort ?? 0;
  return serve === 'http1' || serve === 'http2' ? [{ app, ip: status.podIP, port, serve }] : [];
}

function frontendsOf(
  { metadata: { name, namespace }, spec }: z.infer<typeof service>,
  consumers: readonly { readonly service: string; readonly namespace: string }[],
): readonly Frontend[] {
  const host = `${name}.${namespace}.svc.cluster.local`;
  const own = consumers.filter((consumer) => consumer.service === name);
  return spec.ports.flatMap((port) => {
    const protocol = port.name === 'web' ? 'auto' : 'http';
    const common = { service: name, host, vip: spec.clusterIP, port: port.port };
    const all = { ...common, route: `inbound-vip|${port.port}|${protocol}|${host}` };
    return [
      all,
      ...own.map((consumer) => ({
        ...all,
        route: `${all.route}|from|${consumer.namespace}`,
        consumer: consumer.namespace,
      })),
    ];
  });
}
