import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type RecordedResources, recordedAddresses, recordedAuthorizations } from '#test/kit/recording.ts';
import { decodeResource, encodeResource } from './codec.ts';
import { type Authorization, EMPTY_MATCH } from './policy.ts';
import { printResource } from './print.ts';
import { type Resource, resourceType } from './resource.ts';
import type { Service } from './service.ts';
import type { Workload } from './workload.ts';

const workload: Workload = {
  kind: 'workload',
  uid: 'Kubernetes//Pod/shop/cart-1',
  name: 'cart-1',
  namespace: 'shop',
  addresses: ['10.1.1.12'],
  hostname: '',
  network: '',
  tunnelProtocol: 'HBONE',
  trustDomain: 'cluster.local',
  serviceAccount: 'default',
  node: 'n1',
  canonicalName: 'cart',
  canonicalRevision: 'v1',
  workloadType: 'POD',
  workloadName: 'cart',
  nativeTunnel: false,
  services: new Map([
    ['shop/cart.shop.svc.cluster.local', [{ servicePort: 80, targetPort: 8080 }]],
    ['shop/addresses', []],
  ]),
  authorizationPolicies: ['shop/p03-deny-ns'],
  status: 'HEALTHY',
  clusterId: 'Kubernetes',
  locality: { region: 'r1', zone: 'z1', subzone: '' },
  networkMode: 'STANDARD',
  capacity: 1,
};

const service: Service = {
  kind: 'service',
  name: 'auto',
  namespace: 'shop',
  hostname: 'dns.partner.example',
  addresses: [
    { network: '', ip: '240.240.0.1' },
    { network: '', ip: '2001:2::1' },
  ],
  ports: [{ servicePort: 443, targetPort: 0, appProtocol: 'TLS' }],
  subjectAltNames: [],
  weightedWaypoints: [],
  waypoint: {
    destination: { kind: 'hostname', namespace: 'pay', hostname: 'wp.pay.svc.cluster.local' },
    hboneMtlsPort: 15008,
  },
  loadBalancing: { routingPreference: ['NODE'], mode: 'STRICT', healthPolicy: 'ONLY_HEALTHY' },
  ipFamilies: 'AUTOMATIC',
  canonical: true,
  ingressUseWaypoint: false,
  visibility: 'PUBLIC',
};

test('a pod is printed with its addresses as text and without defaults', () => {
  expect(printResource(workload)).toEqual({
    workload: {
      uid: 'Kubernetes//Pod/shop/cart-1',
      name: 'cart-1',
      namespace: 'shop',
      addresses: ['10.1.1.12'],
      tunnelProtocol: 'HBONE',
      serviceAccount: 'default',
      node: 'n1',
      canonicalName: 'cart',
      canonicalRevision: 'v1',
      workloadType: 'POD',
      workloadName: 'cart',
      services: {
        'shop/addresses': {},
        'shop/cart.shop.svc.cluster.local': { ports: [{ servicePort: 80, targetPort: 8080 }] },
      },
      authorizationPolicies: ['shop/p03-deny-ns'],
      clusterId: 'Kubernetes',
      locality: { region: 'r1', zone: 'z1' },
    },
  });
});

test('what is not a pod has no service account unless one was given', () => {
  const entry = { ...workload, uid: 'Kubernetes/networking.istio.io/WorkloadEntry/shop/vm-1' };
  expect(printResource(entry)).not.toHaveProperty('workload.serviceAccount');
  expect(printResource({ ...entry, serviceAccount: 'vm' })).toHaveProperty('workload.serviceAccount', 'vm');
});

test('an extension is printed with what it says', () => {
  expect(printResource({ ...workload, sameNode: 'tunnel' })).toMatchObject({
    workload: {
      extensions: [
        {
          name: 'tulle.dev/same-node',
          config: { '@type': 'type.googleapis.com/google.protobuf.StringValue', value: 'tunnel' },
        },
      ],
    },
  });
});

test('a capacity is printed as a message', () => {
  expect(printResource({ ...workload, capacity: 3 })).toHaveProperty('workload.capacity', { value: 3 });
});

test('a service is printed with IPv6 addresses in full', () => {
  expect(printResource(service)).toEqual({
    service: {
      name: 'auto',
      namespace: 'shop',
      hostname: 'dns.partner.example',
      addresses: [{ address: '240.240.0.1' }, { address: '2001:0002:0000:0000:0000:0000:0000:0001' }],
      ports: [{ servicePort: 443, appProtocol: 'TLS' }],
      waypoint: {
        hostname: { namespace: 'pay', hostname: 'wp.pay.svc.cluster.local' },
        hboneMtlsPort: 15008,
      },
      loadBalancing: { routingPreference: ['NODE'], mode: 'STRICT' },
      canonical: true,
    },
  });
});

test('a policy is printed with its matches', () => {
  const policy: Authorization = {
    kind: 'authorization',
    name: 'istio_converted_static_strict',
    namespace: 'istio-system',
    scope: 'WORKLOAD_SELECTOR',
    action: 'DENY',
    rules: [
      {
        clauses: [
          { matches: [{ ...EMPTY_MATCH, notPrincipals: [{ kind: 'presence' }] }] },
          { matches: [{ ...EMPTY_MATCH, sourceIps: [{ address: '10.1.0.0', length: 16 }] }] },
        ],
      },
    ],
    dryRun: false,
  };
  expect(printResource(policy)).toEqual({
    name: 'istio_converted_static_strict',
    namespace: 'istio-system',
    scope: 'WORKLOAD_SELECTOR',
    action: 'DENY',
    rules: [
      {
        clauses: [
          { matches: [{ notPrincipals: [{ presence: {} }] }] },
          { matches: [{ sourceIps: [{ address: '10.1.0.0', length: 16 }] }] },
        ],
      },
    ],
  });
});

test('what a stock istiod was recorded to serve is printed as it was recorded, also after the wire', () => {
  const file = join(import.meta.dirname, '../../test/fixtures/istiod/workload-api.json');
  const recorded = JSON.parse(readFileSync(file, 'utf8')) as RecordedResources;
  const resources = new Map<string, Resource>([
    ...recordedAddresses(recorded),
    ...recordedAuthorizations(recorded),
  ]);
  const printed = [...resources].map(([name, resource]) => {
    const decoded = decodeResource(resourceType(resource), encodeResource(resource));
    return [name, printResource(decoded)] as const;
  });
  expect(Object.fromEntries(printed)).toEqual({ ...recorded.Address, ...recorded.Authorization });
  expect(printed.length).toBe(46);
});
