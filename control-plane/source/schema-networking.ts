import { z } from 'zod';
import { isIp } from '#api/address.ts';
import { defineKind, type KindDefinition } from './kind.ts';
import type { ServiceEntryObject, WorkloadEntrySpec } from './objects.ts';
import {
  dnsSubdomain,
  fields,
  filledText,
  ipBlock,
  ipText,
  labels,
  portNumber,
  shown,
  texts,
} from './schema-parts.ts';

const VERSIONS = ['v1', 'v1beta1', 'v1alpha3'];

const HOST = /^(\*\.?)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$/;
const NAMED_ADDRESS = /^(unix:\/\/(\/|@).*[^/]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?)$/;

const host = z.string().superRefine((text, context) => {
  if (text.length > 253 || !HOST.test(text))
    context.addIssue(`${shown(text)} is not a host name; a * may only be its first label`);
});

const address = z.string().transform((text, context) => {
  if (text === '') return text;
  const { data } = ipText.safeParse(text);
  if (data !== undefined) return data;
  if (!NAMED_ADDRESS.test(text) || /^[\d.]+$/.test(text))
    context.addIssue(`${shown(text)} is neither an IP address nor a host name`);
  return text;
});

const portMap = z
  .record(z.string(), portNumber)
  .transform((byName): ReadonlyMap<string, number> => new Map(Object.entries(byName)));

const workload: z.ZodType<WorkloadEntrySpec> = fields({
  address: address.default(''),
  ports: portMap.default(new Map()),
  labels: labels.default(new Map()),
  network: z.string().default(''),
  locality: z.string().default(''),
  weight: z.int().min(0, 'must not be negative').max(0xffff_ffff, 'is too large').exactOptional(),
  serviceAccount: z
    .union([z.literal(''), dnsSubdomain], { error: 'is not the name of a service account' })
    .default(''),
}).superRefine(({ address: written, network, ports }, context) => {
  if (written === '' && network === '')
    context.addIssue({ code: 'custom', path: ['address'], message: 'is required' });
  if (written.startsWith('unix:') && ports.size > 0)
    context.addIssue({ code: 'custom', path: ['ports'], message: 'do not go with the path of a socket' });
});

const entryPort = fields({
  number: portNumber,
  name: filledText,
  protocol: z.string().default(''),
  targetPort: portNumber.exactOptional(),
});

type EntrySpec = ServiceEntryObject['spec'];

const serviceEntrySpec: z.ZodType<EntrySpec> = fields({
  hosts: z.array(host).min(1, 'is empty; name a host').max(256),
  addresses: z.array(ipBlock).max(256).default([]),
  ports: z.array(entryPort).max(256).default([]),
  location: z.enum(['MESH_EXTERNAL', 'MESH_INTERNAL']).default('MESH_EXTERNAL'),
  resolution: z.enum(['NONE', 'STATIC', 'DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS']).default('NONE'),
  endpoints: z.array(workload).max(4096).default([]),
  workloadSelector: fields({ labels: labels.default(new Map()) }).exactOptional(),
  exportTo: texts.default([]),
  subjectAltNames: texts.default([]),
})
  .superRefine((spec, context) => {
    for (const [path, message] of entryFaults(spec))
      context.addIssue({ code: 'custom', path: [...path], message });
  })
  .transform(({ workloadSelector, ...rest }) => ({
    ...rest,
    ...(workloadSelector === undefined ? {} : { workloadSelector: workloadSelector.labels }),
  }));

type Faulty = readonly [path: readonly (string | number)[], message: string];

function* entryFaults(
  spec: Pick<EntrySpec, 'addresses' | 'ports' | 'resolution' | 'endpoints'> & {
    readonly workloadSelector?: object;
  },
): Generator<Faulty> {
  const { resolution, endpoints, addresses, ports } = spec;
  if (spec.workloadSelector !== undefined && endpoints.length > 0)
    yield [['endpoints'], 'cannot stand beside workloadSelector; write one of the two'];
  if (resolution === 'NONE' && endpoints.length > 0)
    yield [['endpoints'], 'do not go with resolution NONE; write resolution: STATIC or DNS'];
  if (resolution === 'DNS_ROUND_ROBIN' && endpoints.length > 1)
    yield [['endpoints'], 'resolution DNS_ROUND_ROBIN takes one endpoint'];
  for (const [index, block] of addresses.entries())
    if (block.includes('/') && resolution !== 'NONE' && resolution !== 'STATIC')
      yield [
        ['addresses', index],
        `a CIDR does not go with resolution ${resolution}, but with NONE or STATIC`,
      ];
  for (const [index, endpoint] of endpoints.entries())
    if (
      resolution === 'STATIC' &&
      !isIp(endpoint.address) &&
      !endpoint.address.startsWith('unix:') &&
      endpoint.address !== ''
    )
      yield [
        ['endpoints', index, 'address'],
        'must be an IP address with resolution STATIC; for names write DNS',
      ];
  yield* portFaults(ports);
}

function* portFaults(ports: EntrySpec['ports']): Generator<Faulty> {
  const seen = new Set<string | number>();
  for (const [index, { name, number }] of ports.entries()) {
    if (seen.has(number)) yield [['ports', index, 'number'], `port ${number} is there twice`];
    if (seen.has(name)) yield [['ports', index, 'name'], `name ${shown(name)} is there twice`];
    seen.add(number).add(name);
  }
}

const entryStatus: z.ZodType<ServiceEntryObject['status']> = z
  .looseObject({
    addresses: z.array(z.looseObject({ host: z.string().default(''), value: ipText })).default([]),
  })
  .transform(({ addresses }) => ({
    addresses: addresses.map((entry) => ({ host: entry.host, value: entry.value })),
  }));

/** Istio's kinds for what runs outside the cluster. */
export const networkingKinds: readonly KindDefinition[] = [
  defineKind({
    kind: 'ServiceEntry',
    group: 'networking.istio.io',
    versions: VERSIONS,
    body: { spec: serviceEntrySpec, status: entryStatus.prefault({}) },
  }),
  defineKind({
    kind: 'WorkloadEntry',
    group: 'networking.istio.io',
    versions: VERSIONS,
    body: { spec: workload },
    unused: ['status'],
  }),
];
