import type {
  GrpcRouteObject,
  HttpRouteObject,
  RouteObject,
  TcpRouteObject,
  TlsRouteObject,
} from '../../source/objects.ts';
import { objectKey } from '../../source/objects.ts';
import type { BackendRef, ParentRef, RouteFilter } from '../../source/route-objects.ts';
import type { GrpcEntry, HttpEntry, ResolvedBackend, StreamEntry, TlsEntry } from './attached.ts';
import type { BackendIndex } from './backends.ts';
import { type Refusal, refusalOf, refusalText } from './refusals.ts';

/** A route, its backends found: what is the same at all ports of a parent. */
export interface ResolvedRoute<Route extends RouteObject = RouteObject> {
  readonly route: Route;
  readonly refusal?: Refusal;
  /** By rule. */
  readonly rules: readonly ResolvedRule[];
}

/** @see ResolvedRoute */
export interface ResolvedRule {
  readonly backends: readonly ResolvedBackend[];
  /** By index in the rule's filters. */
  readonly mirrors: ReadonlyMap<number, ResolvedBackend>;
}

/** Finds the backends of a route, as far as it holds for that parent. */
export function resolveRoute(route: RouteObject, parent: ParentRef, index: BackendIndex): ResolvedRoute {
  const refusal = refusalOf(route);
  const rules = route.spec.rules.map(
    (rule: {
      readonly backendRefs: readonly BackendRef[];
      readonly filters?: readonly RouteFilter[];
    }): ResolvedRule => ({
      backends: rule.backendRefs.map((ref) => index.resolve(route, ref, parent)),
      mirrors: new Map(
        (rule.filters ?? []).flatMap((filter, at): [number, ResolvedBackend][] =>
          filter.kind === 'mirror' ? [[at, index.resolve(route, filter.backend, parent)]] : [],
        ),
      ),
    }),
  );
  return { route, rules, ...(refusal && { refusal }) };
}

/** An entry for each match of each rule, in the order in which they are written. */
export function httpEntries(resolved: ResolvedRoute<HttpRouteObject>): readonly HttpEntry[] {
  return resolved.route.spec.rules.flatMap((spec, rule) =>
    spec.matches.map((match, matchIndex) => {
      const base = entryBase(resolved, rule);
      return { ...base, match, matchIndex, spec, mirrors: mirrorsOf(resolved, rule) };
    }),
  );
}

/** @see httpEntries */
export function grpcEntries(resolved: ResolvedRoute<GrpcRouteObject>): readonly GrpcEntry[] {
  return resolved.route.spec.rules.flatMap((spec, rule) =>
    spec.matches.map((match, matchIndex) => {
      const base = entryBase(resolved, rule);
      return { ...base, match, matchIndex, spec, mirrors: mirrorsOf(resolved, rule) };
    }),
  );
}

/** An entry for each rule. */
export function tcpEntries(resolved: ResolvedRoute<TcpRouteObject>): readonly StreamEntry[] {
  return resolved.route.spec.rules.map((_, rule) => entryBase(resolved, rule));
}

/** An entry for each name of each rule. */
export function tlsEntries(resolved: ResolvedRoute<TlsRouteObject>): readonly TlsEntry[] {
  const { hostnames, rules } = resolved.route.spec;
  const names = hostnames.length === 0 ? [[]] : hostnames.map((name) => [name]);
  return rules.flatMap((_, rule) => names.map((one) => ({ ...entryBase(resolved, rule), hostnames: one })));
}

function entryBase({ route, refusal, rules }: ResolvedRoute, rule: number): StreamEntry {
  const ruleName = route.spec.rules[rule]?.name;
  return {
    object: objectKey(route),
    rule,
    ...(ruleName !== undefined && { ruleName }),
    backends: rules[rule]?.backends ?? [],
    ...(refusal && { refused: refusalText(refusal) }),
  };
}

function mirrorsOf({ rules }: ResolvedRoute, rule: number): ResolvedRule['mirrors'] {
  return rules[rule]?.mirrors ?? new Map();
}
