import type { RouteAction_HashPolicySchema } from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import type { ServiceEntryObject, ServiceObject } from '../../source/objects.ts';
import type { Context } from '../context.ts';
import { problemAt } from '../problems.ts';
import type { Balancing } from './clusters.ts';
import type { Fields } from './messages.ts';

/** How the requests to a service are spread, and by what, if that is to stay the same for some. */
export interface ServiceBalancing {
  readonly balancing: Balancing;
  /** Of `ring-hash` only. */
  readonly hashPolicy: readonly Fields<typeof RouteAction_HashPolicySchema>[];
}

const ANNOTATION = 'tulle.dev/load-balancing';
const HASH_ON = 'tulle.dev/hash-on';
const KINDS: ReadonlySet<string> = new Set<Balancing>(['least-request', 'round-robin', 'ring-hash']);
const SOURCE: ServiceBalancing['hashPolicy'] = [
  { policySpecifier: { case: 'connectionProperties', value: { sourceIp: true } } },
];
const TOKEN = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;

/** Reads the annotations of a Service or ServiceEntry. What is wrong in them is reported, and the default holds. */
export function readBalancing(
  context: Context,
  object: ServiceObject | ServiceEntryObject,
): ServiceBalancing {
  const { annotations } = object.metadata;
  const written = annotations.get(ANNOTATION) ?? 'least-request';
  const hashOn = annotations.get(HASH_ON);
  const warn = (name: string, message: string, effect: string): void =>
    context.report(
      problemAt(object, { path: `metadata.annotations["${name}"]`, message, severity: 'error', effect }),
    );
  if (!isBalancing(written)) {
    warn(
      ANNOTATION,
      `${JSON.stringify(written)} is none of ${[...KINDS].join(', ')}`,
      'least-request is used',
    );
    return { balancing: 'least-request', hashPolicy: [] };
  }
  if (written !== 'ring-hash') {
    if (hashOn !== undefined) warn(HASH_ON, `it needs ${ANNOTATION}: ring-hash`, 'it is ignored');
    return { balancing: written, hashPolicy: [] };
  }
  const hashPolicy = readHashOn(hashOn ?? 'source');
  if (hashPolicy === undefined)
    warn(
      HASH_ON,
      `${JSON.stringify(hashOn)} is none of source, header:NAME (but for Host), cookie:NAME, query:NAME`,
      'the caller is hashed on',
    );
  return { balancing: written, hashPolicy: hashPolicy ?? SOURCE };
}

function isBalancing(text: string): text is Balancing {
  return KINDS.has(text);
}

function readHashOn(text: string): ServiceBalancing['hashPolicy'] | undefined {
  if (text === 'source') return SOURCE;
  const [, kind, name = ''] = /^(header|cookie|query):(.+)$/.exec(text) ?? [];
  // Where a request goes to is not among its headers.
  const isHost = kind === 'header' && name.toLowerCase() === 'host';
  if (isHost || (kind !== 'query' && !TOKEN.test(name))) return undefined;
  switch (kind) {
    case 'header':
      return [{ policySpecifier: { case: 'header', value: { headerName: name.toLowerCase() } } }];
    case 'cookie':
      return [{ policySpecifier: { case: 'cookie', value: { name } } }];
    case 'query':
      return [{ policySpecifier: { case: 'queryParameter', value: { name } } }];
    default:
      return undefined;
  }
}
