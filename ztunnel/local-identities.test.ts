import { expect, test } from 'vitest';
import { ADDRESS_TYPE } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import { workload } from '#test/kit/resources.ts';
import { LocalIdentities } from './local-identities.ts';
import { createTables } from './tables/store.ts';

function setUp() {
  const tables = createTables();
  const events: string[] = [];
  const identities = new LocalIdentities({
    tables,
    node: 'n1',
    onWanted: (identity) => events.push(`want ${formatIdentity(identity)}`),
    onForgotten: (identity) => events.push(`forget ${formatIdentity(identity)}`),
  });
  const update = (updated: readonly Workload[], removed: readonly string[] = []): void => {
    const change = { type: ADDRESS_TYPE, updated, removed };
    tables.apply(change);
    identities.afterUpdate(change);
  };
  return { identities, events, update };
}

const ID = 'spiffe://cluster.local/ns/default/sa/web';
const web = (fields: Partial<Omit<Workload, 'services'>> = {}) =>
  workload({ serviceAccount: 'web', ...fields });

test('an identity is wanted with its first workload and forgotten with its last', () => {
  const { identities, events, update } = setUp();
  update([web({ name: 'a' }), web({ name: 'b' })]);
  update([], ['Kubernetes//Pod/default/a']);
  expect(events).toEqual([`want ${ID}`]);
  expect(identities.isLocal(ID)).toBe(true);
  update([], ['Kubernetes//Pod/default/b']);
  expect(events).toEqual([`want ${ID}`, `forget ${ID}`]);
  expect(identities.isLocal(ID)).toBe(false);
});

test.each([
  { when: 'it is on another node', fields: { node: 'n2' }, wanted: false },
  { when: 'it takes no tunnels', fields: { tunnelProtocol: 'NONE' }, wanted: false },
  { when: 'it ends tunnels itself', fields: { tunnelProtocol: 'NONE', nativeTunnel: true }, wanted: true },
] as const)('a workload’s identity is wanted ($wanted) when $when', ({ fields, wanted }) => {
  const { events, update } = setUp();
  update([web(fields)]);
  expect(events.length > 0).toBe(wanted);
});

const POD = { uid: 'u', name: 'echo-1', namespace: 'default', serviceAccount: 'web' };

test('a served pod’s identity is wanted before it takes tunnels, whichever is known first', () => {
  const first = setUp();
  first.identities.podAdded(POD);
  first.update([web({ tunnelProtocol: 'NONE' })]);
  expect(first.events).toEqual([`want ${ID}`]);
  const second = setUp();
  second.update([web({ tunnelProtocol: 'NONE' })]);
  second.identities.podAdded(POD);
  second.identities.podRemoved('u');
  expect(second.events).toEqual([`want ${ID}`, `forget ${ID}`]);
});

test('a workload that leaves the mesh while its pod is served keeps its identity', () => {
  const { identities, events, update } = setUp();
  update([web()]);
  identities.podAdded(POD);
  update([web({ tunnelProtocol: 'NONE' })]);
  expect(events).toEqual([`want ${ID}`]);
});

test('a workload that changes its account changes what is wanted', () => {
  const { events, update } = setUp();
  update([web()]);
  update([web({ serviceAccount: 'other' })]);
  expect(events).toEqual([`want ${ID}`, 'want spiffe://cluster.local/ns/default/sa/other', `forget ${ID}`]);
});
