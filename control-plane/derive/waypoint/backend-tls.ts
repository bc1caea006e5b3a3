import { packAny } from '#api/envoy/any.ts';
import type { TransportSocketSchema } from '#api/envoy/gen/envoy/config/core/v3/base_pb.ts';
import {
  SubjectAltNameMatcher_SanType,
  type SubjectAltNameMatcherSchema,
} from '#api/envoy/gen/envoy/extensions/transport_sockets/tls/v3/common_pb.ts';
import { UpstreamTlsContextSchema } from '#api/envoy/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts';
import { type BackendTlsPolicyObject, objectKey } from '../../source/objects.ts';
import type { BackendTlsPolicySpec } from '../../source/route-objects.ts';
import type { Context } from '../context.ts';
import { type PolicyStatus, waypointPolicyStatus } from '../policy-status.ts';
import { nameWithPlace, problemAt } from '../problems.ts';
import type { ServiceInfo } from '../services.ts';
import { type Fields, typed } from './messages.ts';

/** How a port's application is connected to. `broken`: TLS is wanted and not possible, so it is not connected to at all. */
export type PortTls =
  | { readonly kind: 'plain' }
  | { readonly kind: 'tls'; readonly socket: Fields<typeof TransportSocketSchema> }
  | { readonly kind: 'broken' };

/** The BackendTLSPolicies. */
export interface TlsBook {
  readonly of: (info: ServiceInfo, port: number) => PortTls;
  /** What became of them. `waypointsOf` says which waypoints have the cluster of a port. */
  readonly statuses: (
    waypointsOf: (service: string, port: number) => readonly string[],
  ) => readonly PolicyStatus[];
}

/** A policy that can be enforced, or the reason why not. */
type Validity =
  | { readonly kind: 'valid'; readonly roots: string }
  | { readonly kind: 'broken'; readonly reason: string };

const PLAIN: PortTls = { kind: 'plain' };
const PEM = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/;

/** Opens the book, and reports policies that cannot be enforced, that contend with an older one, or that are aimed at nothing. */
export function openTlsBook(context: Context, services: ReadonlyMap<string, ServiceInfo>): TlsBook {
  const holders = new Map<string, BackendTlsPolicyObject>();
  const reasons = new Map<BackendTlsPolicyObject, string[]>();
  const sockets = new Map<BackendTlsPolicyObject, PortTls>();
  const ports = portsByTarget(services.values());
  for (const policy of context.inventory.backendTlsPolicies) {
    const validity = validate(context, policy);
    sockets.set(policy, toPortTls(policy, validity));
    const conflicts = claim(context, policy, ports, holders);
    reasons.set(policy, [...(validity.kind === 'broken' ? [validity.reason] : []), ...conflicts]);
  }
  const holderOf = (info: ServiceInfo, port: number): BackendTlsPolicyObject | undefined =>
    holders.get(`${info.key} ${port} named`) ?? holders.get(`${info.key} ${port}`);
  return {
    of: (info, port) => {
      const holder = holderOf(info, port);
      return holder === undefined ? PLAIN : (sockets.get(holder) ?? PLAIN);
    },
    statuses: (waypointsOf) => {
      if (reasons.size === 0) return [];
      const held = [...services.values()].flatMap((info) =>
        info.service.ports.map(({ servicePort }) => ({
          info,
          servicePort,
          policy: holderOf(info, servicePort),
        })),
      );
      return [...reasons].map(([policy, why]) => {
        const own = held.filter((each) => each.policy === policy);
        const waypoints = own.flatMap(({ info, servicePort }) => waypointsOf(info.key, servicePort));
        return waypointPolicyStatus(policy, why, [...new Set(waypoints)].sort());
      });
    },
  };
}

interface TargetPort {
  readonly info: ServiceInfo;
  readonly port: number;
  readonly name: string;
}

function portsByTarget(services: Iterable<ServiceInfo>): ReadonlyMap<string, readonly TargetPort[]> {
  return new Map(
    [...Map.groupBy(services, ({ object }) => objectKey(object))].map(([key, infos]) => [
      key,
      infos.flatMap((info) =>
        info.service.ports.map(({ servicePort }) => ({
          info,
          port: servicePort,
          name: info.portNames.get(servicePort)?.name ?? '',
        })),
      ),
    ]),
  );
}

/** Takes the ports that it is aimed at. One that is named goes before the service as a whole; of two alike the older one holds. */
function claim(
  context: Context,
  policy: BackendTlsPolicyObject,
  ports: ReadonlyMap<string, readonly TargetPort[]>,
  holders: Map<string, BackendTlsPolicyObject>,
): readonly string[] {
  return policy.spec.targetRefs.flatMap(({ kind, name, sectionName }, index) => {
    const key = `${kind} ${policy.metadata.namespace}/${name}`;
    const all = ports.get(key);
    const wanted = (all ?? []).filter((port) => sectionName === undefined || port.name === sectionName);
    const report = (message: string, effect: string): readonly string[] => {
      const path = `spec.targetRefs[${index}]`;
      context.report(problemAt(policy, { path, message, severity: 'warning', effect }));
      return [message];
    };
    if (all === undefined) return report(`there is no ${key}`, 'it has no effect there');
    if (wanted.length === 0)
      return report(`${key} has no port named ${sectionName}`, 'it has no effect there');
    for (const { info, port } of wanted) {
      const place = `${info.key} ${port}${sectionName === undefined ? '' : ' named'}`;
      const holder = holders.get(place);
      if (holder !== undefined)
        return report(`${nameWithPlace(holder)} is aimed at it as well, and is older`, 'the older one holds');
      holders.set(place, policy);
    }
    return [];
  });
}

function validate(context: Context, policy: BackendTlsPolicyObject): Validity {
  const { caCertificateRefs, wellKnownCaCertificates } = policy.spec.validation;
  const broken = (path: string, message: string): Validity => {
    const effect = 'what it is aimed at is not connected to';
    context.report(problemAt(policy, { path, message, severity: 'error', effect }));
    return { kind: 'broken', reason: `${message}: ${effect}` };
  };
  if (wellKnownCaCertificates !== undefined)
    return broken(
      'spec.validation.wellKnownCACertificates',
      `${JSON.stringify(wellKnownCaCertificates)} is not supported; name a ConfigMap in caCertificateRefs`,
    );
  const roots: string[] = [];
  for (const [index, ref] of caCertificateRefs.entries()) {
    const read = readRoots(context, policy, ref);
    if (read.kind === 'broken') return broken(`spec.validation.caCertificateRefs[${index}]`, read.reason);
    roots.push(read.roots);
  }
  return { kind: 'valid', roots: roots.join('\n') };
}

function readRoots(
  { inventory }: Context,
  { metadata: { namespace } }: BackendTlsPolicyObject,
  { group, kind, name }: BackendTlsPolicySpec['validation']['caCertificateRefs'][number],
): Validity {
  if (group !== '' || kind !== 'ConfigMap')
    return { kind: 'broken', reason: `${kind} ${name} cannot be read, only a ConfigMap (group "") can` };
  const object = inventory.configMaps.find(
    ({ metadata }) => metadata.namespace === namespace && metadata.name === name,
  );
  if (object === undefined) return { kind: 'broken', reason: `there is no ConfigMap ${namespace}/${name}` };
  const roots = object.data.get('ca.crt') ?? '';
  return PEM.test(roots)
    ? { kind: 'valid', roots: roots.trim() }
    : { kind: 'broken', reason: `ConfigMap ${namespace}/${name} has no certificates under ca.crt` };
}

function toPortTls({ spec: { validation } }: BackendTlsPolicyObject, validity: Validity): PortTls {
  if (validity.kind === 'broken') return { kind: 'broken' };
  const { hostname, subjectAltNames } = validation;
  const names =
    subjectAltNames.length > 0 ? subjectAltNames : [{ type: 'Hostname', value: hostname } as const];
  const context = packAny(UpstreamTlsContextSchema, {
    sni: hostname,
    commonTlsContext: {
      validationContextType: {
        case: 'validationContext',
        value: {
          trustedCa: { specifier: { case: 'inlineString', value: `${validity.roots}\n` } },
          matchTypedSubjectAltNames: names.map(toMatcher),
        },
      },
    },
  });
  return { kind: 'tls', socket: typed('envoy.transport_sockets.tls', context) };
}

function toMatcher({
  type,
  value,
}: BackendTlsPolicySpec['validation']['subjectAltNames'][number]): Fields<
  typeof SubjectAltNameMatcherSchema
> {
  const { DNS, URI } = SubjectAltNameMatcher_SanType;
  return {
    sanType: type === 'Hostname' ? DNS : URI,
    matcher: { matchPattern: { case: 'exact', value } },
  };
}
