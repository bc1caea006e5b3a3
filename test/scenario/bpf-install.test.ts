import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BpfUnsupportedError } from '#bpf/errors.ts';
import { MAPS, POD_BACKSTOP, POD_OUTBOUND, POD_STRICT, podKey, SIZES } from '#bpf/layout.ts';
import { libbpf } from '#bpf/libbpf.ts';
import { pin, pinnedLink } from '#bpf/links.ts';
import { BpfMap } from '#bpf/maps.ts';
import { installMesh, removePins } from '#bpf/programs.ts';
import {
  type BedPod,
  type BpfBed,
  createBpfBed,
  dialOnce,
  enterPod,
  installElsewhere,
  keepDialling,
  killInstalling,
} from '#test/kit/bpf-bed.ts';
import { closeDescriptor } from '#ztunnel/capture/in-pod-sockets.ts';

let bed: BpfBed;
let pod: BedPod;

beforeAll(async () => {
  bed = await createBpfBed('install');
  pod = await bed.pod('pod');
});

afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
});

function linkIds(): ReadonlyMap<string, number | undefined> {
  const links = join(bed.directory, 'v1/links');
  return new Map(readdirSync(links).map((name) => [name, pinnedLink(join(links, name))?.programId]));
}

/** Pins a link once more, under another name. */
function linkElsewhere(name: string, path: string): void {
  const fd = libbpf().bpf_obj_get(join(bed.directory, 'v1/links', name));
  expect(libbpf().bpf_obj_pin(fd, path)).toBe(0);
  closeDescriptor(fd);
}

test('several agents that install at the same moment share one set of maps and links', async () => {
  const runs = await installElsewhere(bed, { processes: 4 });
  for (const { report, stderr } of runs) {
    expect(report).toEqual({ egress: 'tcx', descriptors: 1 }); // its own namespace's handle stays open
    expect(stderr).toBe('');
  }
  expect(readdirSync(join(bed.directory, 'v1/maps'))).toEqual(expect.arrayContaining(Object.keys(MAPS)));
  const links = linkIds();
  expect(links.size).toBeGreaterThanOrEqual(11);
  expect([...links.values()].every((id) => id !== undefined && id > 0)).toBe(true);
  removePins(bed.directory);
});

test('a new agent finds the maps as they are, and changes the programs with no moment without a hook', async () => {
  const first = installMesh(bed);
  enterPod(first, pod, POD_OUTBOUND | POD_STRICT);
  first.close();
  const before = linkIds();

  const dialling = await keepDialling(pod.netns, `${pod.neighbourIp}:1`, bed.cgroup);
  for (let agent = 0; agent < 4; agent++) {
    const mesh = installMesh(bed);
    expect(mesh.maps.pods.keys()).toEqual([podKey(pod.cookie)]);
    mesh.close();
  }
  const attempts = await dialling.stop();
  expect(Object.keys(attempts)).toEqual(['EPERM']); // strict, and no ztunnel
  expect(attempts['EPERM']).toBeGreaterThan(10);

  const after = linkIds();
  expect([...after.keys()]).toEqual([...before.keys()]);
  for (const [name, id] of after) expect(id).not.toBe(before.get(name));
  removePins(bed.directory);
  expect(await dialOnce(pod.netns, `${pod.neighbourIp}:1`, bed.cgroup)).toBe('ECONNREFUSED');
});

test('agents that are killed at any moment leave nothing that hinders the next', async () => {
  for (const afterMs of [0, 10, 20, 30, 40, 50, 60]) await killInstalling(bed, afterMs);
  // One that died between pinning a link and giving it its name.
  const extra = join(bed.directory, 'v1/links/connect4-new');
  installMesh(bed).close();
  linkElsewhere('connect6', extra);
  installMesh(bed).close();
  expect(existsSync(extra)).toBe(false);
  expect([...linkIds().values()].every((id) => id !== undefined && id > 0)).toBe(true);
  expect(await dialOnce(pod.netns, `${pod.neighbourIp}:1`, bed.cgroup)).toBe('ECONNREFUSED');
  removePins(bed.directory);
});

test('everything is removed, also what is half made, and removed again', () => {
  installMesh(bed).close();
  rmSync(join(bed.directory, 'v1/maps/pods'));
  rmSync(join(bed.directory, 'v1/links/bind4'));
  mkdirSync(join(bed.directory, 'v1/pods/12345'));
  removePins(bed.directory);
  expect(existsSync(bed.directory)).toBe(false);
  removePins(bed.directory);
});

test('a link whose cgroup is gone, or another one, gives way to a new one', () => {
  const cgroup = `${bed.cgroup}/again`;
  const id = (): bigint => statSync(cgroup, { bigint: true }).ino;
  const connect4 = join(bed.directory, 'v1/links/connect4');
  installMesh({ ...bed, cgroup }).close();
  const old = id();
  expect(pinnedLink(connect4)?.identity).toBe(old);
  rmdirSync(cgroup);
  installMesh({ ...bed, cgroup }).close();
  expect(id()).not.toBe(old);
  expect(pinnedLink(connect4)?.identity).toBe(id());
  installMesh(bed).close();
  expect(pinnedLink(connect4)?.identity).not.toBe(id());
  rmdirSync(cgroup);
  removePins(bed.directory);
});

test('pods of an older layout stay captured until they have their entry in ours', async () => {
  const old = installMesh(bed);
  old.attachPod(pod);
  enterPod(old, pod, POD_OUTBOUND | POD_STRICT | POD_BACKSTOP);
  renameSync(join(bed.directory, 'v1'), join(bed.directory, 'v0'));
  const dialling = await keepDialling(pod.netns, `${pod.neighbourIp}:1`, bed.cgroup);

  const mesh = installMesh(bed);
  expect(mesh.attachedPods()).toEqual([]);
  mesh.attachPod(pod);
  mesh.sweep();
  expect(existsSync(join(bed.directory, 'v0'))).toBe(true);
  enterPod(mesh, pod, POD_OUTBOUND | POD_STRICT | POD_BACKSTOP);
  mesh.sweep();
  expect(existsSync(join(bed.directory, 'v0'))).toBe(false);
  expect(old.maps.pods.lookup(podKey(pod.cookie), Buffer.alloc(SIZES.pod))).toBe(false);

  expect(await dialOnce(pod.netns, `${pod.neighbourIp}:1`, bed.cgroup)).toBe('EPERM');
  expect(Object.keys(await dialling.stop())).toEqual(['EPERM']);
  old.close();
  mesh.close();
  removePins(bed.directory);
});

test('an older layout without pods is gone at once', () => {
  installMesh(bed).close();
  renameSync(join(bed.directory, 'v1'), join(bed.directory, 'v0'));
  installMesh(bed).close();
  expect(readdirSync(bed.directory)).toEqual(['v1']);
  removePins(bed.directory);
});

test('a newer layout is refused, and left as it is', () => {
  mkdirSync(join(bed.directory, 'v2/maps'), { recursive: true });
  expect(() => installMesh(bed)).toThrow(/v2 is of a newer version of the mesh \(layout 2, ours is 1\)/);
  expect(readdirSync(bed.directory)).toEqual(['v2']);
  removePins(bed.directory);
});

test('a map of another shape is refused, and left as it is', () => {
  const path = join(bed.directory, 'v1/maps/pods');
  mkdirSync(join(bed.directory, 'v1/maps'), { recursive: true });
  const array = libbpf().bpf_map_create(2, 'stranger', 4, 24, 1, null);
  expect(libbpf().bpf_obj_pin(array, path)).toBe(0);
  closeDescriptor(array);
  expect(() => installMesh(bed)).toThrow(
    `map ${path} is another one (key 4 instead of 8, value 24 instead of 40, type 2 instead of 1)`,
  );
  BpfMap.openPinned(path, { key: 4, value: 24 }).close();
  removePins(bed.directory);
});

test.each([
  {
    stranger: 'a map',
    replace: (path: string, other: string) => renameSync(other, path),
    from: 'maps/probes',
    message: 'connect4 is no link: something else than the mesh pinned it; remove it',
  },
  {
    stranger: 'a link of another hook',
    replace: (path: string, other: string) => renameSync(other, path),
    from: 'links/connect6',
    message: 'connect4 is a link of another kind (cgroup hook 11, not cgroup hook 10)',
  },
  {
    stranger: 'a directory',
    replace: (path: string) => {
      rmSync(path);
      mkdirSync(path);
    },
    from: '',
    message: 'connect4 is a directory in the place of a pin: something else than the mesh made it; remove it',
  },
])('$stranger in place of a link is refused', ({ replace, from, message }) => {
  installMesh(bed).close();
  replace(join(bed.directory, 'v1/links/connect4'), join(bed.directory, 'v1', from));
  expect(() => installMesh(bed)).toThrow(message);
  removePins(bed.directory);
  expect(existsSync(bed.directory)).toBe(false);
});

test.each(['maps/pods', 'links/connect4-new'])('a directory in place of %s is refused', (name) => {
  const path = join(bed.directory, 'v1', name);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  expect(() => installMesh(bed)).toThrow(`${path} is a directory in the place of a pin`);
  removePins(bed.directory);
});

test('where nothing can be pinned, there is no eBPF, and the reason says what and where', () => {
  const map = libbpf().bpf_map_create(2, 'nowhere', 4, 4, 1, null);
  const path = join(tmpdir(), 'tulletest-no-pin');
  expect(() => pin(map, path)).toThrow(BpfUnsupportedError);
  expect(() => pin(map, path)).toThrow(`pin map ${path}: EPERM: operation not permitted (bpffs`);
  closeDescriptor(map);
});

test('a directory that others can write to is refused', () => {
  mkdirSync(bed.directory, { recursive: true });
  chmodSync(bed.directory, 0o777);
  expect(() => installMesh(bed)).toThrow(`${bed.directory} belongs to user 0 with mode 777`);
  removePins(bed.directory);
});

test('a link to a directory is refused: whoever made it could lead it elsewhere', () => {
  const other = `${bed.directory}-other`;
  mkdirSync(other, { recursive: true, mode: 0o700 });
  symlinkSync(other, bed.directory);
  expect(() => installMesh(bed)).toThrow(`${bed.directory} is no directory`);
  rmSync(bed.directory);
  removePins(other);
});
