import { z } from 'zod';

import { defineKind, type KindDefinition } from './kind.ts';
import type { EndpointSliceObject, PodObject, ServiceObject } from './objects.ts';
import {
  annotations,
  dnsLabel,
  dnsSubdomain,
  fields,
  filledText,
  ipText,
  labels,
  portNumber,
  portReference,
  texts,
} from './schema-parts.ts';

const transport = z.enum(['TCP', 'UDP', 'SCTP']).default('TCP');

const servicePort = fields(
  {
    name: z.string().default(''),
    port: portNumber,
    targetPort: portReference.exactOptional(),
    appProtocol: z.string().exactOptional(),
    protocol: transport,
  },
  ['nodePort'],
);

const clusterIp = z.union([z.enum(['None', '']), ipText], {
  error: 'is neither an IP address nor None',
});

const serviceSpec: z.ZodType<ServiceObject['spec']> = fields(
  {
    type: z.enum(['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName']).default('ClusterIP'),
    clusterIP: clusterIp.exactOptional(),
    clusterIPs: z.array(clusterIp).max(2).default([]),
    ipFamilies: z
      .array(z.enum(['IPv4', 'IPv6']))
      .max(2)
      .default([]),
    selector: labels.exactOptional(),
    ports: z.array(servicePort).default([]).superRefine(portsDiffer),
    trafficDistribution: z.enum(['PreferClose', 'PreferSameZone', 'PreferSameNode']).exactOptional(),
    internalTrafficPolicy: z.enum(['Cluster', 'Local']).exactOptional(),
    publishNotReadyAddresses: z.boolean().default(false),
  },
  [
    'allocateLoadBalancerNodePorts',
    'externalIPs',
    'externalName',
    'externalTrafficPolicy',
    'healthCheckNodePort',
    'ipFamilyPolicy',
    'loadBalancerClass',
    'loadBalancerIP',
    'loadBalancerSourceRanges',
    'sessionAffinity',
    'sessionAffinityConfig',
  ],
);

function portsDiffer(
  ports: readonly { readonly port: number; readonly protocol: string }[],
  context: z.RefinementCtx,
): void {
  const seen = new Set<string>();
  for (const [index, { port, protocol }] of ports.entries()) {
    if (seen.has(`${port}/${protocol}`))
      context.addIssue({
        code: 'custom',
        path: [index, 'port'],
        message: `${protocol} port ${port} is there twice`,
      });
    seen.add(`${port}/${protocol}`);
  }
}

const containerPort = fields(
  { containerPort: portNumber, name: z.string().default(''), protocol: transport },
  ['hostIP', 'hostPort'],
);

const podContainer = fields({ ports: z.array(containerPort).default([]) }, [
  'args',
  'command',
  'env',
  'envFrom',
  'image',
  'imagePullPolicy',
  'lifecycle',
  'livenessProbe',
  'name',
  'readinessProbe',
  'resizePolicy',
  'resources',
  'restartPolicy',
  'restartPolicyRules',
  'securityContext',
  'startupProbe',
  'stdin',
  'stdinOnce',
  'terminationMessagePath',
  'terminationMessagePolicy',
  'tty',
  'volumeDevices',
  'volumeMounts',
  'workingDir',
]);

const podSpec: z.ZodType<PodObject['spec']> = fields(
  {
    serviceAccountName: dnsSubdomain.default('default'),
    nodeName: z.union([z.literal(''), dnsSubdomain], { error: 'is not the name of a node' }).default(''),
    hostNetwork: z.boolean().default(false),
    containers: z.array(podContainer).default([]),
  },
  [
    'activeDeadlineSeconds',
    'affinity',
    'automountServiceAccountToken',
    'dnsConfig',
    'dnsPolicy',
    'enableServiceLinks',
    'ephemeralContainers',
    'hostAliases',
    'hostIPC',
    'hostPID',
    'hostUsers',
    'hostname',
    'hostnameOverride',
    'imagePullSecrets',
    'initContainers',
    'nodeSelector',
    'os',
    'overhead',
    'preemptionPolicy',
    'priority',
    'priorityClassName',
    'readinessGates',
    'resourceClaims',
    'resources',
    'restartPolicy',
    'runtimeClassName',
    'schedulerName',
    'schedulingGates',
    'securityContext',
    'serviceAccount',
    'setHostnameAsFQDN',
    'shareProcessNamespace',
    'subdomain',
    'terminationGracePeriodSeconds',
    'tolerations',
    'topologySpreadConstraints',
    'volumes',
    'workloadRef',
  ],
);

// A status is written by machines; only its own fields are looked at, whatever others there are.
const podStatus: z.ZodType<PodObject['status']> = z
  .looseObject({
    phase: z.enum(['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown']).default('Pending'),
    podIP: ipText.exactOptional(),
    podIPs: z.array(z.looseObject({ ip: ipText })).default([]),
    hostIP: ipText.exactOptional(),
    conditions: z.array(z.looseObject({ type: filledText, status: filledText })).default([]),
  })
  .transform(({ phase, podIP, podIPs, hostIP, conditions }) => ({
    phase,
    podIPs: podIPs.length > 0 || podIP === undefined ? podIPs.map(({ ip }) => ip) : [podIP],
    ...(hostIP === undefined ? {} : { hostIP }),
    ready: conditions.some(({ type, status }) => type === 'Ready' && status === 'True'),
  }));

const endpointConditions = fields({
  ready: z.boolean().default(true),
  serving: z.boolean().exactOptional(),
  terminating: z.boolean().default(false),
});

const endpoint = fields(
  {
    addresses: texts,
    conditions: endpointConditions.prefault({}),
    targetRef: z
      .looseObject({ kind: filledText, name: filledText, namespace: z.string().default('') })
      .transform(({ kind, name, namespace }) => ({ kind, name, namespace }))
      .exactOptional(),
    nodeName: z.string().exactOptional(),
    zone: z.string().exactOptional(),
  },
  ['deprecatedTopology', 'hints', 'hostname'],
).transform(({ conditions: { ready, serving = ready, terminating }, ...rest }) => ({
  ...rest,
  ready,
  serving,
  terminating,
}));

const endpointPort = fields(
  { name: z.string().default(''), port: portNumber.default(0), protocol: transport },
  ['appProtocol'],
);

const endpoints: z.ZodType<EndpointSliceObject['endpoints']> = z.array(endpoint);
const endpointPorts: z.ZodType<EndpointSliceObject['ports']> = z.array(endpointPort);

/** Kinds of Kubernetes itself. */
export const coreKinds: readonly KindDefinition[] = [
  defineKind({
    kind: 'Namespace',
    group: '',
    versions: ['v1'],
    name: dnsLabel,
    isNamespaced: false,
    body: {},
    unused: ['spec', 'status'],
  }),
  defineKind({
    kind: 'Node',
    group: '',
    versions: ['v1'],
    isNamespaced: false,
    body: {},
    unused: ['spec', 'status'],
  }),
  defineKind({
    kind: 'ServiceAccount',
    group: '',
    versions: ['v1'],
    body: {},
    unused: ['automountServiceAccountToken', 'imagePullSecrets', 'secrets'],
  }),
  defineKind({
    kind: 'Service',
    group: '',
    versions: ['v1'],
    name: dnsLabel,
    body: { spec: serviceSpec },
    unused: ['status'],
  }),
  defineKind({
    kind: 'Pod',
    group: '',
    versions: ['v1'],
    body: { spec: podSpec, status: podStatus.prefault({}) },
  }),
  defineKind({
    kind: 'EndpointSlice',
    group: 'discovery.k8s.io',
    versions: ['v1', 'v1beta1'],
    body: {
      addressType: z.enum(['IPv4', 'IPv6', 'FQDN']),
      endpoints: endpoints.default([]),
      ports: endpointPorts.default([]),
    },
  }),
  defineKind({
    kind: 'ConfigMap',
    group: '',
    versions: ['v1'],
    body: { data: annotations.default(new Map()) },
    unused: ['binaryData', 'immutable'],
  }),
];
