import { expect, test } from 'vitest';
import type { Fault } from '../model.ts';
import { chooseFaults, type FaultInput } from './faults.ts';
import { fault, textOf } from './testing.ts';

function input(overrides: Partial<FaultInput> = {}): FaultInput {
  return {
    where: 'downstream',
    headers: ['x-chaos', 'pay'],
    authority: 'ledger.pay',
    caller: { identity: { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'web' } },
    nowMs: 1000,
    draw: () => 0.5,
    active: () => 0,
    ...overrides,
  };
}

test.each<[string, Partial<Fault>, Partial<FaultInput>, boolean]>([
  ['for all', {}, {}, true],
  ['of the other place', { where: 'upstream' }, {}, false],
  ['of an attempt', { where: 'upstream' }, { where: 'upstream' }, true],
  ['that ends later', { expires_at_ms: 1001 }, {}, true],
  ['that has ended', { expires_at_ms: 1000 }, {}, false],
  ['for a share that is drawn', { percent: 50.1 }, {}, true],
  ['for a share that is not drawn', { percent: 50 }, {}, false],
  ['for none', { percent: 0 }, { draw: () => 0 }, false],
  ['for a header', { headers: [{ name: 'x-chaos', match: textOf('~p.y') }] }, {}, true],
  ['for another header', { headers: [{ name: 'x-chaos', match: textOf('p') }] }, {}, false],
  ['for a host', { headers: [{ name: 'host', match: textOf('ledger.pay') }] }, {}, true],
  ['for another host', { headers: [{ name: 'host', match: textOf('ledger') }] }, {}, false],
  ['for the caller', { from_service_accounts: ['shop/web'] }, {}, true],
  ['for another caller', { from_service_accounts: ['shop/api', 'pay/web'] }, {}, false],
  ['for the caller’s namespace', { from_namespaces: ['shop'] }, {}, true],
  ['for another namespace', { from_namespaces: ['pay'] }, {}, false],
  [
    'for both, of which one is not its',
    { from_namespaces: ['shop'], from_service_accounts: ['a/b'] },
    {},
    false,
  ],
  ['that is not full', { max_concurrent: 2 }, { active: () => 1 }, true],
  ['that is full', { max_concurrent: 2 }, { active: () => 2 }, false],
])('a fault %s', (_, overrides, asked, wanted) => {
  const chosen = chooseFaults([fault({ abort_http_status: 503, ...overrides })], input(asked));
  expect(chosen.abort).toEqual(wanted ? { httpStatus: 503 } : undefined);
  expect(chosen.names).toEqual(wanted ? ['chaos'] : []);
});

test('of several faults delays add up, the first abort and the lowest rate count', () => {
  const chosen = chooseFaults(
    [
      fault({ name: 'slow', delay_ms: 100, delay_jitter_ms: 50 }),
      fault({ name: 'gone', percent: 0, abort_http_status: 500 }),
      fault({ name: 'down', abort_grpc_status: 14, response_kbps: 64 }),
      fault({ name: 'thin', delay_ms: 10, abort_http_status: 503, response_kbps: 8 }),
    ],
    input(),
  );
  expect(chosen).toMatchObject({
    names: ['slow', 'down', 'thin'],
    delayMs: 135,
    abort: { grpcStatus: 14 },
    responseKbps: 8,
  });
});
