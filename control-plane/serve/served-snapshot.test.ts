import { fromBinary } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { decodeResource } from '#api/codec.ts';
import { DeltaDiscoveryResponseSchema } from '#api/gen/envoy/service/discovery/v3/discovery_pb.ts';
import { ADDRESS_TYPE } from '#api/resource.ts';
import { policy, workload } from '#test/kit/resources.ts';
import { EMPTY_VIEW, serveResources } from './served-snapshot.ts';

const NAME = 'Kubernetes//Pod/default/echo-1';

test('a resource is served under its name with its content and a version of it', () => {
  const served = serveResources([workload({})]).view[ADDRESS_TYPE].get(NAME);
  const [resource] = fromBinary(DeltaDiscoveryResponseSchema, served?.field ?? new Uint8Array()).resources;
  expect(resource).toMatchObject({
    name: NAME,
    version: served?.version,
    resource: { typeUrl: ADDRESS_TYPE },
  });
  expect(decodeResource(ADDRESS_TYPE, resource?.resource?.value ?? new Uint8Array())).toEqual(workload({}));
});

test('a version depends on the content alone, so that it is the same after a restart', () => {
  const [first, second, other] = [workload({}), workload({}), workload({ node: 'n2' })].map(
    (one) => serveResources([one]).view[ADDRESS_TYPE].get(NAME)?.version,
  );
  expect(first).toMatch(/^[0-9a-f]{16}$/);
  expect(second).toBe(first);
  expect(other).not.toBe(first);
});

test('what is unchanged is taken over as it is', () => {
  const before = serveResources([workload({}), workload({ name: 'b' })]).view;
  const after = serveResources([workload({}), workload({ name: 'b', node: 'n2' })], before).view;
  expect(after[ADDRESS_TYPE].get(NAME)).toBe(before[ADDRESS_TYPE].get(NAME));
  expect(after[ADDRESS_TYPE].get('Kubernetes//Pod/default/b')).not.toBe(
    before[ADDRESS_TYPE].get('Kubernetes//Pod/default/b'),
  );
});

test('where nothing changed the snapshot is the same one', () => {
  const before = serveResources([workload({}), policy({})]).view;
  expect(serveResources([workload({}), policy({})], before).view).toBe(before);
  expect(serveResources([], EMPTY_VIEW).view).toBe(EMPTY_VIEW);
  expect(serveResources([workload({})], before).view).not.toBe(before);
});

test('a resource that no wire can carry keeps the version served last, and is named', () => {
  const before = serveResources([workload({})]).view;
  const { view: snapshot, failures } = serveResources(
    [workload({ addresses: ['nonsense'] }), policy({})],
    before,
  );
  expect(snapshot[ADDRESS_TYPE].get(NAME)).toBe(before[ADDRESS_TYPE].get(NAME));
  expect(failures.map(({ name }) => name)).toEqual([NAME]);
});
