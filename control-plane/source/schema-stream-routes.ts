import { z } from 'zod';
import { defineConvertedKind, type KindDefinition } from './kind.ts';
import type { TcpRouteSpec } from './route-objects.ts';
import { dnsSubdomain, fields } from './schema-parts.ts';
import {
  GATEWAY_GROUP,
  hostnames,
  parentRefs,
  plainBackendRefs,
  toBackendRef,
  toParentRefs,
} from './schema-route-parts.ts';

const rule = fields({ name: dnsSubdomain.exactOptional(), backendRefs: plainBackendRefs });

/** Of several rules without matches, only the first could ever count. */
const rules = z.array(rule).min(1, 'is empty; write one rule').max(1, 'has more than one rule');

const tcpSpec = fields({ parentRefs, rules }, ['useDefaultGateways']);

const tlsSpec = fields({ parentRefs, hostnames: hostnames(1024), rules }, ['useDefaultGateways']);

function toSpec(written: z.output<typeof tcpSpec>, namespace: string): TcpRouteSpec {
  return {
    parentRefs: toParentRefs(written.parentRefs, namespace),
    rules: written.rules.map(({ name, backendRefs }) => ({
      ...(name !== undefined && { name }),
      backendRefs: backendRefs.map((ref) => toBackendRef(ref, namespace, [])),
    })),
  };
}

/** TCPRoute and TLSRoute. */
export const streamRouteKinds: readonly KindDefinition[] = [
  defineConvertedKind({
    kind: 'TCPRoute',
    group: GATEWAY_GROUP,
    versions: ['v1', 'v1beta1', 'v1alpha2'],
    spec: tcpSpec,
    convert: (written, { namespace }) => toSpec(written, namespace),
  }),
  defineConvertedKind({
    kind: 'TLSRoute',
    group: GATEWAY_GROUP,
    versions: ['v1', 'v1beta1', 'v1alpha3', 'v1alpha2'],
    spec: tlsSpec,
    convert: (written, { namespace }) => ({
      ...toSpec(written, namespace),
      hostnames: written.hostnames,
    }),
  }),
];
