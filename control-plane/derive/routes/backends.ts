import { objectKey, type ReferenceGrantObject, type RouteObject } from '../../source/objects.ts';
import type { BackendRef, ParentRef } from '../../source/route-objects.ts';
import type { ServiceInfo } from '../services.ts';
import type { ResolvedBackend } from './attached.ts';

const GATEWAY_GROUP = 'gateway.networking.k8s.io';
const ISTIO_GROUP = 'networking.istio.io';

/** Finds the services behind backendRefs. */
export interface BackendIndex {
  /** As far as the route holds for that parent. */
  readonly resolve: (route: RouteObject, ref: BackendRef, parent: ParentRef) => ResolvedBackend;
}

/** What backends are found in. */
export interface BackendInput {
  readonly services: ReadonlyMap<string, ServiceInfo>;
  readonly grants: readonly ReferenceGrantObject[];
  /** Services that exist and have no endpoints of their own (ExternalName), by `Service pay/ledger`. */
  readonly unfit: ReadonlyMap<string, string>;
}

type Target = ResolvedBackend['target'];

/** A backend is a Service, or a host of a ServiceEntry (`kind: Hostname`); of another namespace only if a grant says so. */
export function indexBackends({ services, grants, unfit }: BackendInput): BackendIndex {
  const byObject = new Map([...services.values()].map((info) => [objectKey(info.object), info]));
  const grantsByNamespace = Map.groupBy(grants, ({ metadata }) => metadata.namespace);
  const find = (ref: BackendRef): ServiceInfo | undefined => {
    if (ref.kind === 'Service') return byObject.get(`Service ${ref.namespace}/${ref.name}`);
    const info = services.get(`${ref.namespace}/${ref.name}`);
    return info?.object.kind === 'ServiceEntry' ? info : undefined;
  };
  const targetOf = (route: RouteObject, ref: BackendRef, parent: ParentRef): Target => {
    if (!isKnownKind(ref)) {
      const kind = ref.group === '' ? ref.kind : `${ref.group}/${ref.kind}`;
      return invalid('InvalidKind', `${kind} cannot be a backend, only a Service can`);
    }
    const name = `${ref.kind} ${ref.namespace}/${ref.name}`;
    const isOpen =
      isLocal(route, ref) ||
      isSame(parent, ref) ||
      (grantsByNamespace.get(ref.namespace) ?? []).some((grant) => allows(grant, route, ref));
    if (!isOpen) {
      const message = `${name} is of another namespace, where no ReferenceGrant lets ${route.kind} of ${route.metadata.namespace} name it`;
      return invalid('RefNotPermitted', message);
    }
    return targetIn(find(ref), ref, name, unfit.get(name));
  };
  return {
    resolve: (route, ref, parent) => ({
      ref,
      weight: ref.weight,
      filters: ref.filters,
      target: targetOf(route, ref, parent),
    }),
  };
}

function targetIn(
  info: ServiceInfo | undefined,
  { port }: BackendRef,
  name: string,
  unfit: string | undefined,
): Target {
  if (info === undefined) {
    const message = unfit === undefined ? `there is no ${name}` : `${name} ${unfit}`;
    return invalid('BackendNotFound', message);
  }
  if (port === undefined) return invalid('BackendNotFound', `${name} needs a port`);
  if (!info.service.ports.some(({ servicePort }) => servicePort === port))
    return invalid('BackendNotFound', `${name} has no port ${port}`);
  if (info.object.kind === 'Service' && !hasStreams(info.object.spec.ports, port))
    return invalid('UnsupportedProtocol', `port ${port} of ${name} is not TCP`);
  return { kind: 'service', service: info.key, port };
}

function invalid(reason: Extract<Target, { kind: 'invalid' }>['reason'], message: string): Target {
  return { kind: 'invalid', reason, message };
}

function isKnownKind({ group, kind }: BackendRef): boolean {
  return (group === '' && kind === 'Service') || (group === ISTIO_GROUP && kind === 'Hostname');
}

function hasStreams(
  ports: readonly { readonly port: number; readonly protocol: string }[],
  wanted: number,
): boolean {
  return ports.some(({ port, protocol }) => port === wanted && protocol === 'TCP');
}

function isLocal({ metadata }: RouteObject, { namespace }: BackendRef): boolean {
  return metadata.namespace === namespace;
}

/** A consumer's route may send the requests to its parent where they were going anyway; those to another parent it may not. */
function isSame(parent: ParentRef, { group, kind, namespace, name }: BackendRef): boolean {
  return (
    parent.group === group && parent.kind === kind && parent.namespace === namespace && parent.name === name
  );
}

function allows({ spec }: ReferenceGrantObject, route: RouteObject, ref: BackendRef): boolean {
  const { namespace } = route.metadata;
  const isFrom = spec.from.some(
    (from) => from.group === GATEWAY_GROUP && from.kind === route.kind && from.namespace === namespace,
  );
  return (
    isFrom &&
    spec.to.some(
      (to) =>
        to.group === ref.group && to.kind === ref.kind && (to.name === undefined || to.name === ref.name),
    )
  );
}
