import type { RouteObject } from '../../source/objects.ts';
import type { BackendRef, GrpcRule, HttpRule, RouteFilter, Unsupported } from '../../source/route-objects.ts';

/** Why a whole route is refused, so that its requests are answered 500. */
export interface Refusal {
  readonly reason: 'UnsupportedValue' | 'IncompatibleFilters';
  /** What each of its faults is, and where. */
  readonly faults: readonly { readonly path: string; readonly message: string }[];
}

/** What is wrong with a route, wherever it is attached; undefined: nothing. */
export function refusalOf(route: RouteObject): Refusal | undefined {
  if (route.kind !== 'HTTPRoute' && route.kind !== 'GRPCRoute') return undefined;
  const rules: readonly (HttpRule | GrpcRule)[] = route.spec.rules;
  const unsupported = rules.flatMap(unsupportedIn);
  if (unsupported.length > 0)
    return {
      reason: 'UnsupportedValue',
      faults: unsupported.map(({ path, reason }) => ({ path, message: reason })),
    };
  const incompatible = rules.flatMap((rule, index) => incompatibleIn(rule, `spec.rules[${index}]`));
  return incompatible.length > 0 ? { reason: 'IncompatibleFilters', faults: incompatible } : undefined;
}

/** In one line, as a condition's message. */
export function refusalText({ faults }: Refusal): string {
  const [first, ...others] = faults.map(({ path, message }) => `${path}: ${message}`);
  return `${first}${others.length > 0 ? `; and ${others.length} more` : ''}`;
}

function unsupportedIn(rule: HttpRule | GrpcRule): readonly Unsupported[] {
  const filters = [...rule.filters, ...rule.backendRefs.flatMap((ref: BackendRef) => ref.filters)];
  return [...rule.unsupported, ...filters.filter(isUnsupported)];
}

function isUnsupported(filter: RouteFilter): filter is Unsupported {
  return filter.kind === 'unsupported';
}

function incompatibleIn(rule: HttpRule | GrpcRule, path: string): readonly Refusal['faults'][number][] {
  const indexOf = (kind: RouteFilter['kind']): number =>
    rule.filters.findIndex((filter) => filter.kind === kind);
  const redirect = indexOf('redirect');
  if (redirect < 0) return [];
  const at = `${path}.filters[${redirect}]`;
  if (indexOf('rewrite') >= 0)
    return [{ path: at, message: 'RequestRedirect cannot stand beside URLRewrite; write one of the two' }];
  if (rule.backendRefs.length > 0)
    return [{ path: at, message: 'RequestRedirect cannot stand beside backendRefs; leave them away' }];
  return [];
}
