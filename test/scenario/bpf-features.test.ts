import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BpfError, BpfUnsupportedError } from '#bpf/errors.ts';
import { explainLoadError, openCgroup } from '#bpf/features.ts';
import { podKey } from '#bpf/layout.ts';
import { loadLibbpf } from '#bpf/libbpf.ts';
import { loadObject, REFUSED, readObject } from '#bpf/objects.ts';
import { ensureBpffs, installMesh } from '#bpf/programs.ts';
import { section } from '#bpf/testing-btf.ts';
import { type BpfBed, createBpfBed, type InstallReport, installElsewhere } from '#test/kit/bpf-bed.ts';

let bed: BpfBed;
let empty: string;

beforeAll(async () => {
  bed = await createBpfBed('features');
  empty = mkdtempSync(join(tmpdir(), 'tulle-'));
});

afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
  rmSync(empty, { recursive: true });
});

/** What is missing, by the error of a call. */
function missing(work: () => unknown): { feature: string; message: string } {
  try {
    work();
  } catch (error) {
    if (error instanceof BpfUnsupportedError) return { feature: error.feature, message: error.message };
    throw error;
  }
  throw new Error('nothing is missing');
}

/** What a process says that was started by such a command. */
async function reportBy(by: readonly string[], options: Partial<BpfBed> = {}): Promise<InstallReport> {
  const [run] = await installElsewhere({ ...bed, ...options }, { by });
  expect(run?.stderr).toBe('');
  if (run === undefined) throw new Error('it did not run');
  return run.report;
}

test('no libbpf', () => {
  expect(missing(() => loadLibbpf('libbpf.so.0.none'))).toEqual({
    feature: 'libbpf',
    message: 'libbpf.so.0.none cannot be used: install libbpf 1 (Debian: libbpf1)',
  });
  // A library, but not this one.
  expect(missing(() => loadLibbpf('libc.so.6')).feature).toBe('libbpf');
});

test('a process that may not call bpf(2)', async () => {
  const report = await reportBy(['setpriv', '--bounding-set=-all', '--inh-caps=-all']);
  expect(report).toMatchObject({
    error: 'BpfUnsupportedError',
    feature: 'bpf',
    message: expect.stringContaining('bpf(2) says EPERM: operation not permitted: root with CAP_BPF'),
  });
});

test('a process that may load programs, but not attach them to the network', async () => {
  const report = await reportBy(['setpriv', '--bounding-set=-net_admin,-sys_admin', '--inh-caps=-all']);
  expect(report).toMatchObject({ error: 'BpfUnsupportedError', feature: 'bpf' });
});

test('bpffs is mounted where it is not', async () => {
  const inPrivate = (script: string): string[] => ['unshare', '--mount', 'sh', '-c', script];
  const report = await reportBy(inPrivate('umount /sys/fs/bpf && exec "$0" "$@"'));
  expect(report).toMatchObject({ egress: expect.any(String) });
});

test('whoever may read the mount point cannot keep bpffs from being mounted', async () => {
  const locked = 'umount /sys/fs/bpf && exec 9</sys/fs/bpf && flock 9 && exec "$0" "$@"';
  const since = performance.now();
  const report = await reportBy(['unshare', '--mount', 'sh', '-c', locked]);
  expect(report).toMatchObject({ egress: expect.any(String) });
  expect(performance.now() - since).toBeLessThan(10_000);
  expect(existsSync('/run/tulle-mounts-bpffs')).toBe(false);
});

test('no bpffs', async () => {
  expect(missing(() => ensureBpffs(join(empty, 'none')))).toEqual({
    feature: 'bpffs',
    message: expect.stringContaining(`bpffs is not mounted at ${empty}/none and cannot be (mount -t bpf bpf`),
  });
  expect(missing(() => installMesh({ ...bed, directory: join(empty, 'mesh') }))).toEqual({
    feature: 'bpffs',
    message: `${empty}/mesh is not on bpffs: mount -t bpf bpf /sys/fs/bpf, or name a directory below it`,
  });
  const readOnly = 'mount -o bind,ro /sys/fs/bpf /sys/fs/bpf && exec "$0" "$@"';
  expect(await reportBy(['unshare', '--mount', 'sh', '-c', readOnly])).toMatchObject({
    feature: 'bpffs',
    message: expect.stringContaining('cannot be made or written to'),
  });
});

test('no cgroup of version 2', async () => {
  const cases = [
    { cgroup: join(empty, 'mesh'), why: `${empty} is no cgroup of version 2` },
    { cgroup: join(empty, 'none/mesh'), why: 'ENOENT' },
    // Never the root one.
    { cgroup: join(bed.cgroup, '..'), why: 'is no cgroup of version 2' },
  ];
  for (const { cgroup, why } of cases)
    expect(missing(() => openCgroup(cgroup))).toEqual({
      feature: 'cgroup2',
      message: expect.stringContaining(why),
    });
  const readOnly = `mount -o bind,ro ${bed.cgroup} ${bed.cgroup} && exec "$0" "$@"`;
  const report = await reportBy(['unshare', '--mount', 'sh', '-c', readOnly], {
    cgroup: join(bed.cgroup, 'mesh'),
  });
  expect(report).toMatchObject({ feature: 'cgroup2', message: expect.stringContaining('EROFS') });
});

test('programs that the kernel refuses: which, and the end of what it says, and nothing is printed', async () => {
  const file = readObject('pod');
  // r0 = r9: nothing is in r9 yet.
  Buffer.from([0xbf, 0x90, 0, 0, 0, 0, 0, 0]).copy(section(file, 'tc'));
  const load = (): unknown => loadObject('pod', file, { maps: new Map(), constants: podKey(1n) });
  expect(load).toThrow(BpfError);
  expect(load).toThrow(/^load pod\.bpf\.o, program leave: EACCES: permission denied:\n(.*\n)*R9 !read_ok/);
});

test.each([26, 31, 36, 44, 60])(
  'want of descriptors is nothing that the kernel lacks: %d at most',
  async (limit) => {
    expect(await reportBy(['prlimit', `--nofile=${limit}`])).toEqual({
      error: 'Error',
      code: 'EMFILE',
      message: 'programs cannot be loaded with fewer than 64 free descriptors: raise the limit (ulimit -n)',
    });
  },
);

test('what is no object is refused', () => {
  expect(() => loadObject('pod', Buffer.from('something else'), { maps: new Map() })).toThrow(
    'read pod.bpf.o',
  );
  expect(() => loadObject('pod', readObject('pod'), { maps: new Map(), constants: Buffer.alloc(3) })).toThrow(
    'set the 3 bytes of constants of pod.bpf.o: EINVAL',
  );
});

test('a load that fails is explained by what is missing, or else stays what it is', () => {
  for (const code of ['EINVAL', REFUSED]) {
    const explained = explainLoadError(new BpfError('load', { code }));
    expect(explained).toBeInstanceOf(BpfUnsupportedError);
    // Nothing is missing here, so each thing is found when it is asked for alone.
    expect(explained).toMatchObject({
      feature: 'programs',
      message: 'this kernel does not take the programs: load',
    });
  }
  const full = new BpfError('load', { code: 'ENOMEM' });
  expect(explainLoadError(full)).toBe(full);
});
