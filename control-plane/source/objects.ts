import type {
  BackendTlsPolicySpec,
  GrpcRouteSpec,
  HttpRouteSpec,
  ReferenceGrantSpec,
  TcpRouteSpec,
  TlsRouteSpec,
  TrafficPolicySpec,
} from './route-objects.ts';

/**
 * The objects that the control plane reads: Kubernetes-shaped, only the fields that are used, with Kubernetes'
 * defaults not yet filled in. `source/` parses and checks them; `derive/` turns them into resources.
 */

/** Where an object was written: `file:line:column`, or what stands for it (`state`, `kubernetes`). */
export interface Position {
  readonly file: string;
  /** From 1; 0 when there is no text. */
  readonly line: number;
  readonly column: number;
}

/** `file:line:column`; the file alone where there is no text. */
export function formatPosition({ file, line, column }: Position): string {
  return line === 0 ? file : `${file}:${line}:${column}`;
}

/** Labels, annotations, names. Maps, because keys come from outside. */
export type StringMap = ReadonlyMap<string, string>;

/** What every object has. */
export interface ObjectMeta {
  readonly name: string;
  /** `default` when not written; empty for kinds without a namespace. */
  readonly namespace: string;
  readonly labels: StringMap;
  readonly annotations: StringMap;
  /** Milliseconds since the epoch; absent when not written. Older wins where two contend; then by name. */
  readonly creationTimestampMs?: number;
  readonly generateName?: string;
  /** How often the spec has changed; only a cluster counts that. */
  readonly generation?: number;
  readonly uid?: string;
  readonly ownerReferences: readonly {
    readonly kind: string;
    readonly name: string;
    readonly controller: boolean;
  }[];
  readonly deletionTimestamp?: string;
}

/** A label selector of the matchLabels kind; no labels: everything in the namespace. */
export interface Selector {
  readonly matchLabels: StringMap;
}

/** A port by number or by name. */
export type IntOrString = number | string;

interface ObjectBase<Kind extends string> {
  readonly kind: Kind;
  readonly metadata: ObjectMeta;
  readonly position: Position;
  /** Position of a path inside the object (`spec.rules[0].from`), or of the nearest parent that is written. */
  readonly positionOf: (path: string) => Position;
}

export interface NamespaceObject extends ObjectBase<'Namespace'> {}

export interface NodeObject extends ObjectBase<'Node'> {}

interface ServiceAccountObject extends ObjectBase<'ServiceAccount'> {}

export interface ServiceObject extends ObjectBase<'Service'> {
  readonly spec: {
    /** `ClusterIP` when not written. */
    readonly type: string;
    readonly clusterIP?: string;
    readonly clusterIPs: readonly string[];
    readonly ipFamilies: readonly ('IPv4' | 'IPv6')[];
    readonly selector?: StringMap;
    readonly ports: readonly {
      readonly name: string;
      readonly port: number;
      readonly targetPort?: IntOrString;
      readonly appProtocol?: string;
      /** `TCP` when not written. */
      readonly protocol: string;
    }[];
    readonly trafficDistribution?: string;
    readonly internalTrafficPolicy?: string;
    readonly publishNotReadyAddresses: boolean;
  };
}

export interface PodObject extends ObjectBase<'Pod'> {
  readonly spec: {
    readonly serviceAccountName: string;
    readonly nodeName: string;
    readonly hostNetwork: boolean;
    readonly containers: readonly {
      readonly ports: readonly {
        readonly containerPort: number;
        readonly name: string;
        readonly protocol: string;
      }[];
    }[];
  };
  readonly status: {
    readonly phase: string;
    readonly podIPs: readonly string[];
    readonly hostIP?: string;
    readonly ready: boolean;
  };
}

export interface EndpointSliceObject extends ObjectBase<'EndpointSlice'> {
  readonly addressType: string;
  readonly endpoints: readonly {
    readonly addresses: readonly string[];
    /** True when not written. */
    readonly ready: boolean;
    readonly serving: boolean;
    readonly terminating: boolean;
    readonly targetRef?: { readonly kind: string; readonly name: string; readonly namespace: string };
    readonly nodeName?: string;
    readonly zone?: string;
  }[];
  readonly ports: readonly { readonly name: string; readonly port: number; readonly protocol: string }[];
}

export interface GatewayObject extends ObjectBase<'Gateway'> {
  readonly spec: {
    readonly gatewayClassName: string;
    readonly listeners: readonly {
      readonly name: string;
      readonly port: number;
      readonly protocol: string;
      /** `Same` when not written; `None` also for a selector that cannot be evaluated. */
      readonly allowedFrom: 'Same' | 'All' | 'Selector' | 'None';
      readonly allowedSelector?: Selector;
    }[];
    /** `infrastructure.parametersRef`: settings of the waypoint itself, in a ConfigMap of its namespace. */
    readonly parametersRef?: { readonly group: string; readonly kind: string; readonly name: string };
  };
  readonly status: { readonly addresses: readonly { readonly type: string; readonly value: string }[] };
}

export interface GatewayClassObject extends ObjectBase<'GatewayClass'> {
  readonly spec: { readonly controllerName: string };
}

export interface HttpRouteObject extends ObjectBase<'HTTPRoute'> {
  readonly spec: HttpRouteSpec;
}

export interface GrpcRouteObject extends ObjectBase<'GRPCRoute'> {
  readonly spec: GrpcRouteSpec;
}

export interface TcpRouteObject extends ObjectBase<'TCPRoute'> {
  readonly spec: TcpRouteSpec;
}

export interface TlsRouteObject extends ObjectBase<'TLSRoute'> {
  readonly spec: TlsRouteSpec;
}

/** The Gateway API's routes. */
export type RouteObject = HttpRouteObject | GrpcRouteObject | TcpRouteObject | TlsRouteObject;

export interface ReferenceGrantObject extends ObjectBase<'ReferenceGrant'> {
  readonly spec: ReferenceGrantSpec;
}

export interface BackendTlsPolicyObject extends ObjectBase<'BackendTLSPolicy'> {
  readonly spec: BackendTlsPolicySpec;
}

export interface TrafficPolicyObject extends ObjectBase<'TrafficPolicy'> {
  readonly spec: TrafficPolicySpec;
}

export interface RequestAuthenticationObject extends ObjectBase<'RequestAuthentication'> {
  readonly spec: {
    readonly selector?: Selector;
    readonly targetRefs: readonly TargetRef[];
    /** As they are written; nothing reads them yet. */
    readonly jwtRules: readonly unknown[];
  };
}

export interface TargetRef {
  readonly group: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
}

export interface PolicySource {
  readonly principals: readonly string[];
  readonly notPrincipals: readonly string[];
  readonly requestPrincipals: readonly string[];
  readonly notRequestPrincipals: readonly string[];
  readonly namespaces: readonly string[];
  readonly notNamespaces: readonly string[];
  readonly serviceAccounts: readonly string[];
  readonly notServiceAccounts: readonly string[];
  readonly ipBlocks: readonly string[];
  readonly notIpBlocks: readonly string[];
  readonly remoteIpBlocks: readonly string[];
  readonly notRemoteIpBlocks: readonly string[];
  readonly trustDomains: readonly string[];
  readonly notTrustDomains: readonly string[];
}

export interface PolicyOperation {
  readonly hosts: readonly string[];
  readonly notHosts: readonly string[];
  readonly ports: readonly string[];
  readonly notPorts: readonly string[];
  readonly methods: readonly string[];
  readonly notMethods: readonly string[];
  readonly paths: readonly string[];
  readonly notPaths: readonly string[];
}

export interface PolicyCondition {
  readonly key: string;
  readonly values: readonly string[];
  readonly notValues: readonly string[];
}

export interface PolicyRule {
  /** Sources are ORed. */
  readonly from: readonly PolicySource[];
  /** Operations are ORed. */
  readonly to: readonly PolicyOperation[];
  readonly when: readonly PolicyCondition[];
}

export interface AuthorizationPolicyObject extends ObjectBase<'AuthorizationPolicy'> {
  readonly spec: {
    readonly selector?: Selector;
    readonly targetRefs: readonly TargetRef[];
    readonly action: 'ALLOW' | 'DENY' | 'AUDIT' | 'CUSTOM';
    readonly rules: readonly PolicyRule[];
    readonly provider?: string;
  };
}

export type MtlsMode = 'UNSET' | 'DISABLE' | 'PERMISSIVE' | 'STRICT';

export interface PeerAuthenticationObject extends ObjectBase<'PeerAuthentication'> {
  readonly spec: {
    readonly selector?: Selector;
    readonly mode: MtlsMode;
    readonly portLevelMtls: ReadonlyMap<number, MtlsMode>;
  };
}

export interface WorkloadEntrySpec {
  readonly address: string;
  readonly ports: ReadonlyMap<string, number>;
  readonly labels: StringMap;
  readonly network: string;
  readonly locality: string;
  readonly weight?: number;
  readonly serviceAccount: string;
}

export interface WorkloadEntryObject extends ObjectBase<'WorkloadEntry'> {
  readonly spec: WorkloadEntrySpec;
}

export interface ServiceEntryObject extends ObjectBase<'ServiceEntry'> {
  readonly spec: {
    readonly hosts: readonly string[];
    readonly addresses: readonly string[];
    readonly ports: readonly {
      readonly number: number;
      readonly name: string;
      readonly protocol: string;
      readonly targetPort?: number;
    }[];
    readonly location: 'MESH_EXTERNAL' | 'MESH_INTERNAL';
    readonly resolution: 'NONE' | 'STATIC' | 'DNS' | 'DNS_ROUND_ROBIN' | 'DYNAMIC_DNS';
    readonly endpoints: readonly WorkloadEntrySpec[];
    readonly workloadSelector?: StringMap;
    readonly exportTo: readonly string[];
    readonly subjectAltNames: readonly string[];
  };
  readonly status: { readonly addresses: readonly { readonly host: string; readonly value: string }[] };
}

export interface ConfigMapObject extends ObjectBase<'ConfigMap'> {
  readonly data: StringMap;
}

/** Every object that is read. */
export type MeshObject =
  | NamespaceObject
  | NodeObject
  | ServiceAccountObject
  | ServiceObject
  | PodObject
  | EndpointSliceObject
  | GatewayObject
  | GatewayClassObject
  | RouteObject
  | ReferenceGrantObject
  | BackendTlsPolicyObject
  | TrafficPolicyObject
  | RequestAuthenticationObject
  | AuthorizationPolicyObject
  | PeerAuthenticationObject
  | WorkloadEntryObject
  | ServiceEntryObject
  | ConfigMapObject;

/** `Kind namespace/name`, or `Kind name` for kinds without a namespace: how every view names an object. */
export type ObjectKey = string;

/** @see ObjectKey */
export function objectKey(object: {
  readonly kind: string;
  readonly metadata: Pick<ObjectMeta, 'name' | 'namespace'>;
}): ObjectKey {
  const { namespace, name } = object.metadata;
  return namespace === '' ? `${object.kind} ${name}` : `${object.kind} ${namespace}/${name}`;
}

/** Something wrong with what was written, as `status` and `check` print it. */
export interface Problem {
  /** `AuthorizationPolicy alpha/p`, or the file where there is no object. */
  readonly object: string;
  readonly position: Position;
  /** `spec.action`; empty for the object as a whole. */
  readonly path: string;
  readonly message: string;
  /** `warning` changes nothing; `error` means that the object, or a part of it, is not what was written. */
  readonly severity: 'warning' | 'error';
  /** What is in force instead: `the last good version stays`, `denies what it selects`, … */
  readonly effect: string;
}

/**
 * What a source currently holds. An object with an error keeps its last good version in `objects`; a *policy* that has
 * none is in `broken`, with what could still be read of its selection, and denies what it selects.
 */
export interface ObjectSet {
  readonly objects: ReadonlyMap<ObjectKey, MeshObject>;
  readonly broken: readonly BrokenPolicy[];
  readonly problems: readonly Problem[];
  /** Objects of kinds that Tulle does not read, listed only. */
  readonly unread: readonly { readonly object: string; readonly position: Position }[];
}

/** A policy that could not be read and has no good version. */
export interface BrokenPolicy {
  readonly kind: 'AuthorizationPolicy' | 'PeerAuthentication' | 'RequestAuthentication';
  readonly name: string;
  readonly namespace: string;
  /** What it selects as far as it could be read; absent: everything in its namespace (or, in the root namespace, the mesh). */
  readonly selector?: Selector;
  /**
   * What it targets instead of selecting workloads, if that could be read: it denies at these only. A RequestAuthentication always
   * has some: one without is for nobody.
   */
  readonly targetRefs?: readonly TargetRef[];
  readonly position: Position;
}
