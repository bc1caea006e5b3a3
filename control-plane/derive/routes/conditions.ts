import { objectKey, type Problem, type RouteObject } from '../../source/objects.ts';
import type { RouteFilter } from '../../source/route-objects.ts';
import { problemAt } from '../problems.ts';
import type { ServiceInfo } from '../services.ts';
import type { ResolvedBackend, RouteCondition, RouteStatus } from './attached.ts';
import type { LostClaims } from './frontends.ts';
import type { ParentResult, ServicePortRef } from './parents.ts';
import { refusalText } from './refusals.ts';
import type { ResolvedRoute } from './resolved-route.ts';

/** A route, and what each of its parentRefs came to. */
export interface Attachment {
  readonly route: RouteObject;
  /** In the order of `spec.parentRefs`. */
  readonly parents: readonly {
    readonly result: ParentResult;
    /** As far as it holds for that parent. */
    readonly resolved: ResolvedRoute;
  }[];
}

type Verdict = Pick<RouteCondition, 'status' | 'reason' | 'message'>;

/** What a route's status says: an entry for each parentRef that is ours, none where no one is. */
export function routeStatus({ route, parents }: Attachment, lost: LostClaims): readonly RouteStatus[] {
  const observedGeneration = route.metadata.generation ?? 1;
  const entries = route.spec.parentRefs.flatMap((ref, index): RouteStatus['parents'][number][] => {
    const parent = parents[index];
    if (parent === undefined || parent.result.kind === 'foreign') return [];
    const { result, resolved } = parent;
    const conditions: readonly RouteCondition[] = [
      { type: 'Accepted', ...acceptedVerdict(resolved, result, lost), observedGeneration },
      { type: 'ResolvedRefs', ...referencesVerdict(resolved), observedGeneration },
    ];
    return [{ parentRef: ref.written, controllerName: 'tulle.dev/waypoint', conditions }];
  });
  return entries.length === 0 ? [] : [{ object: objectKey(route), parents: entries }];
}

/** The same as problems, each at its place. */
export function attachmentProblems(
  attachment: Attachment,
  lost: LostClaims,
  hasWaypoint: (service: ServiceInfo) => boolean,
): readonly Problem[] {
  const { route, parents } = attachment;
  const ours = parents.flatMap(({ result, resolved }) => (result.kind === 'ports' ? [resolved] : []));
  return [
    ...parents.flatMap(({ result }, index) => parentProblems(route, result, index, lost)),
    ...ours.slice(0, 1).flatMap(refusalProblems),
    ...distinct(ours.flatMap(referenceProblems)),
    ...ours.slice(0, 1).flatMap(emptyRuleProblems),
    ...waypointProblems(attachment, hasWaypoint),
  ];
}

/** What is wrong at several parents is one problem. */
function distinct(problems: readonly Problem[]): readonly Problem[] {
  return [...new Map(problems.map((one) => [`${one.path} ${one.message}`, one])).values()];
}

function acceptedVerdict(
  { route, refusal }: ResolvedRoute,
  parent: Exclude<ParentResult, { kind: 'foreign' }>,
  lost: LostClaims,
): Verdict {
  if (parent.kind === 'rejected') return { status: 'False', reason: parent.reason, message: parent.message };
  if (refusal) return { status: 'False', reason: refusal.reason, message: refusalText(refusal) };
  const losses = lossesOf(route, parent.ports, lost);
  const [first] = losses;
  if (first !== undefined && losses.length === parent.ports.length)
    return { status: 'False', reason: 'Conflicted', message: first.message };
  const message =
    first === undefined ? 'the route is attached' : `the route is attached, but ${first.message}`;
  return { status: 'True', reason: 'Accepted', message };
}

function lossesOf(
  route: RouteObject,
  ports: readonly ServicePortRef[],
  lost: LostClaims,
): readonly { readonly message: string }[] {
  return ports.flatMap((at) => {
    const winner = lost.winnerOver(route, at);
    if (winner === undefined) return [];
    return [{ message: `port ${at.port} of ${at.service.key} is that of ${winner}` }];
  });
}

interface InvalidReference {
  readonly path: string;
  readonly backend: ResolvedBackend;
  readonly target: Extract<ResolvedBackend['target'], { kind: 'invalid' }>;
}

function invalidReferences({ rules }: ResolvedRoute): readonly InvalidReference[] {
  return rules.flatMap(({ backends, mirrors }, rule) => {
    const at = `spec.rules[${rule}]`;
    const references: readonly (readonly [string, ResolvedBackend])[] = [
      ...backends.map((one, index) => [`${at}.backendRefs[${index}]`, one] as const),
      ...[...mirrors].map(
        ([index, one]) => [`${at}.filters[${index}].requestMirror.backendRef`, one] as const,
      ),
    ];
    return references.flatMap(([path, backend]) =>
      backend.target.kind === 'invalid' ? [{ path, backend, target: backend.target }] : [],
    );
  });
}

function referencesVerdict(resolved: ResolvedRoute): Verdict {
  const [first, ...others] = invalidReferences(resolved);
  if (first === undefined)
    return { status: 'True', reason: 'ResolvedRefs', message: 'all references are resolved' };
  const { path, target } = first;
  const rest = others.length > 0 ? `; and ${others.length} more` : '';
  return { status: 'False', reason: target.reason, message: `${path}: ${target.message}${rest}` };
}

function referenceProblems(resolved: ResolvedRoute): readonly Problem[] {
  const isStream = resolved.route.kind === 'TCPRoute' || resolved.route.kind === 'TLSRoute';
  return invalidReferences(resolved).map(({ path, backend, target }) => {
    const isMirror = path.endsWith('requestMirror.backendRef');
    const isHarmless = backend.weight === 0 || isMirror;
    const answer = isStream
      ? 'its share of the connections is refused'
      : 'its share of the requests is answered 500';
    return problemAt(resolved.route, {
      path,
      message: target.message,
      severity: isHarmless ? 'warning' : 'error',
      effect: isMirror ? 'nothing is mirrored to it' : isHarmless ? 'it has no share' : answer,
    });
  });
}

/** Rules that send nothing anywhere: as they are written, but hardly as they are meant. */
function emptyRuleProblems({ route, rules, refusal }: ResolvedRoute): readonly Problem[] {
  if (refusal) return [];
  if (rules.length === 0) {
    const message = 'has no rules; write one, with a backend';
    const effect = 'it matches nothing, and nothing goes to the service itself either';
    return [problemAt(route, { path: 'spec.rules', message, severity: 'warning', effect })];
  }
  return rules.flatMap(({ backends }, index) => {
    const rule = route.spec.rules[index];
    if (rule === undefined || backends.some(({ weight }) => weight > 0) || redirects(rule)) return [];
    const message =
      backends.length === 0
        ? 'has no backendRefs; name a backend, or write a RequestRedirect'
        : 'has only backends of weight 0; give one of them a weight';
    const path = `spec.rules[${index}]${backends.length === 0 ? '' : '.backendRefs'}`;
    const effect = 'all that it matches is answered 500';
    return [problemAt(route, { path, message, severity: 'warning', effect })];
  });
}

function redirects(rule: RouteObject['spec']['rules'][number]): boolean {
  const filters: readonly RouteFilter[] = 'filters' in rule ? rule.filters : [];
  return filters.some(({ kind }) => kind === 'redirect');
}

function refusalProblems({ route, refusal }: ResolvedRoute): readonly Problem[] {
  const faults = refusal?.faults ?? [];
  return faults.map(({ path, message }) =>
    problemAt(route, { path, message, severity: 'error', effect: 'all its requests are answered 500' }),
  );
}

function parentProblems(
  route: RouteObject,
  parent: ParentResult,
  index: number,
  lost: LostClaims,
): readonly Problem[] {
  const path = `spec.parentRefs[${index}]`;
  const effect = 'the route is not attached to it';
  switch (parent.kind) {
    case 'foreign':
      return [problemAt(route, { path, message: parent.message, severity: 'warning', effect })];
    case 'rejected':
      return [problemAt(route, { path, message: parent.message, severity: 'error', effect })];
    case 'ports': {
      const nothing = 'the route does nothing there';
      return [
        ...lossesOf(route, parent.ports, lost).map(({ message }) =>
          problemAt(route, { path, message, severity: 'error', effect: nothing }),
        ),
        ...parent.ports.flatMap((at) => {
          const older = lost.shadowOver(route, at);
          if (older === undefined) return [];
          const message = `${older} is older, and has all of port ${at.port} of ${at.service.key} that this one is for`;
          return [problemAt(route, { path, message, severity: 'warning', effect: nothing })];
        }),
      ];
    }
  }
}

function waypointProblems(
  { route, parents }: Attachment,
  hasWaypoint: (service: ServiceInfo) => boolean,
): readonly Problem[] {
  const seen = new Set<ServiceInfo>();
  return parents.flatMap(({ result }, index) => {
    if (result.kind !== 'ports') return [];
    const services = new Set(result.ports.map(({ service }) => service));
    return [...services].flatMap((service) => {
      if (seen.has(service) || hasWaypoint(service)) return [];
      seen.add(service);
      const message = `${objectKey(service.object)} has no waypoint; label it, or its namespace, with istio.io/use-waypoint`;
      const path = `spec.parentRefs[${index}]`;
      const effect = 'the route does nothing until then';
      return [problemAt(route, { path, message, severity: 'warning', effect })];
    });
  });
}
