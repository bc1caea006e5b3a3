import { expect, test } from 'vitest';
import type { TcpRoute } from '../model.ts';
import { decideStream } from './decide-stream.ts';
import { backend, cluster, configOf, frontend } from './testing.ts';
import { SmoothWeights } from './weights.ts';

function tcp(to: string, ...serverNames: readonly string[]): TcpRoute {
  return { serverNames, backends: [backend(to)], origin: { object: 'TLSRoute pay/ledger', rule: 0 } };
}

const NAMES = ['any', 'wild', 'wilder', 'exact'];

function decide(
  routes: readonly TcpRoute[],
  serverName: string | undefined,
): ReturnType<typeof decideStream> {
  const only = frontend({ protocol: 'tls', tcp: routes });
  const config = configOf(
    [],
    NAMES.map((name) => cluster(name)),
    only,
  );
  return decideStream({ config, frontend: only, serverName, weights: new SmoothWeights(() => 0) });
}

test.each([
  ['a.e.org', 'exact'],
  ['b.e.org', 'wild'],
  ['b.x.e.org', 'wilder'],
  ['e.org', 'any'],
  [undefined, 'any'],
])('the server name %s goes to %s', (serverName, wanted) => {
  const routes = [tcp('any'), tcp('wild', '*.e.org'), tcp('wilder', '*.x.e.org'), tcp('exact', 'a.e.org')];
  expect(decide(routes, serverName)).toMatchObject({ kind: 'forward', cluster: { name: wanted } });
});

test('a connection without a route, or with a backend that is none, is refused', () => {
  expect(decide([tcp('exact', 'a.e.org')], 'b.org')).toEqual({
    kind: 'refused',
    reason: 'no route for the server name b.org',
  });
  const route = tcp('invalid|TCPRoute pay/r|0|0');
  expect(decide([route], undefined)).toEqual({
    kind: 'refused',
    reason: 'there is no cluster invalid|TCPRoute pay/r|0|0',
    route,
    cluster: 'invalid|TCPRoute pay/r|0|0',
  });
});
