import { expect, test } from 'vitest';
import { findCgroupMount } from './cgroups.ts';

const CONTROLLERS = 'tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n';

test('cgroup version 2 is found wherever it is mounted', () => {
  const mounts = `${CONTROLLERS}cgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n`;
  expect(findCgroupMount(mounts)).toBe('/sys/fs/cgroup/uni fied');
});

test('where it is not mounted, the remedy covers no controllers of version 1', () => {
  expect(() => findCgroupMount(CONTROLLERS)).toThrow(
    /: mkdir -p (\S+\/unified) && mount -t cgroup2 none \1$/,
  );
  expect(() => findCgroupMount('proc /proc proc rw 0 0\n')).toThrow(
    /mounted: mount -t cgroup2 none \/sys\/fs\/cgroup$/,
  );
});
