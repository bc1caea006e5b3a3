import type {
  BackendExplanation,
  EndpointExplanation,
  ForwardExplanation,
  WaypointExplanation,
} from './waypoint-explanation.ts';

/** What a waypoint decides, for people: a line a decision, in the order in which it takes them. */
export function waypointLines(explanation: WaypointExplanation): readonly string[] {
  const { waypoint, listener, request, passedOver, route, faults, action } = explanation;
  const whose =
    listener?.routes === 'consumer' ? "routes of the caller's namespace" : 'routes of the service';
  const heard =
    listener === null ? 'has no listener' : `port ${listener.port} of ${listener.service}, ${whose}`;
  return [
    `way   waypoint ${waypoint}: ${heard}`,
    ...(request === null ? [] : [`      ${request.method} ${request.path}${request.query}`]),
    ...passedOver.map(({ route: name, match, why }) => `      not ${name} (${match}): ${why}`),
    ...(route === null ? [] : [`route ${route.name} (${route.match})${at(route.position)}`]),
    ...faults.map(
      ({ policy, name, percent, does, where, endsAt }) =>
        `fault ${policy} ${name}: ${does}, ${percent}% of ${where === 'upstream' ? 'attempts' : 'requests'}, until ${endsAt}`,
    ),
    ...actionLines(action),
  ];
}

function actionLines(action: WaypointExplanation['action']): readonly string[] {
  switch (action.kind) {
    case 'refused':
      return [`      refused${action.status === 0 ? '' : ` with ${action.status}`}: ${action.reason}`];
    case 'answered':
      return [`      answered${action.status === 0 ? '' : ` with ${action.status}`}: ${action.what}`];
    case 'forward':
      return [...conditionLines(action), ...action.backends.flatMap(backendLines)];
  }
}

function conditionLines({
  rewrite,
  timeoutMs,
  retry,
  mirrors,
  session,
}: ForwardExplanation): readonly string[] {
  return [
    ...(rewrite === null ? [] : [`      goes on as ${rewrite.target} at ${rewrite.authority}`]),
    ...(retry === null ? [] : [`      ${timeText(timeoutMs)}, ${retryText(retry)}`]),
    ...mirrors.map(({ backend, share }) => `      ${percent(share)} copied to ${backend}`),
    ...(session === null ? [] : [`      its session holds it at ${session}`]),
  ];
}

function timeText(timeoutMs: number): string {
  return timeoutMs === 0 ? 'no time limit' : `at most ${timeoutMs} ms`;
}

function retryText({ attempts, on, perTryTimeoutMs }: NonNullable<ForwardExplanation['retry']>): string {
  const per = perTryTimeoutMs === 0 ? '' : `, ${perTryTimeoutMs} ms each`;
  if (attempts === 0) return `no retry${per}`;
  const causes = [
    ...(on.connectFailure ? ['no connection'] : []),
    ...(on.reset ? ['a reset (if it is safe to repeat)'] : []),
    ...(on.statusCodes.length > 0 ? [on.statusCodes.join(' ')] : []),
  ];
  return `${attempts} more ${attempts === 1 ? 'try' : 'tries'} after ${causes.join(', ')}${per}`;
}

function backendLines({
  backend,
  weight,
  share,
  balancing,
  problem,
  endpoints,
}: BackendExplanation): readonly string[] {
  const how = problem ?? balancing ?? '';
  return [
    `to    ${percent(share)} ${backend} (weight ${weight}): ${how}`,
    ...endpoints.map((endpoint) => `      ${endpointText(endpoint)}`),
  ];
}

function endpointText({ address, workload, health, tunnel, verdict }: EndpointExplanation): string {
  const state = health === 'healthy' ? '' : `, ${health}`;
  const place = `${workload} at ${address} (${tunnel === 'HBONE' ? 'tunnel' : 'plain TCP'}${state})`;
  if (verdict === null) return place;
  const policy = verdict.policy === null ? '' : `, ${verdict.policy}`;
  return `${place}: ${verdict.kind === 'allow' ? 'let in' : 'denied'}: ${verdict.reason}${policy}${at(verdict.position)}`;
}

function at(position: string | null): string {
  return position === null ? '' : ` (${position})`;
}

function percent(share: number): string {
  return `${Number((share * 100).toFixed(1))}%`;
}
