import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { podDirectory, removeTree, versionDirectory } from '#bpf/pins.ts';
import { removePins } from '#bpf/programs.ts';
import { type BedPod, type BpfBed, createBpfBed, dialOnce } from '#test/kit/bpf-bed.ts';
import type { CapturedPod } from '#ztunnel/capture/capture.ts';
import { createEbpfCapture, type EbpfCapture } from '#ztunnel/capture/ebpf.ts';

/** A strict pod without a ztunnel: what it dials is refused by the hook in connect, or, from outside the cgroup, at its device. */
let bed: BpfBed;
let inBed: BedPod;
let pod: CapturedPod;
let capture: EbpfCapture;

beforeAll(async () => {
  bed = await createBpfBed('away');
  inBed = await bed.pod('pod');
  pod = {
    ...{ uid: 'u1', netnsPath: inBed.netns.path, udp: 'allow', mode: 'strict', refusesPlaintext: false },
    ...{ addresses: [inBed.ip], probes: [] },
  };
  capture = createEbpfCapture(bed);
  await capture.apply(pod, 'both');
});

afterAll(async () => {
  capture?.close();
  await bed?.[Symbol.asyncDispose]();
});

async function refused(): Promise<{ readonly atConnect: boolean; readonly atDevice: boolean }> {
  const counted = async (): Promise<number> => (await capture.counters(pod)).get('egress_tcp') ?? 0;
  const before = await counted();
  await dialOnce(inBed.netns, `${inBed.neighbourIp}:1`);
  const inCgroup = await dialOnce(inBed.netns, `${inBed.neighbourIp}:1`, bed.cgroup);
  return { atConnect: inCgroup === 'EPERM', atDevice: (await counted()) > before };
}

test.each([
  { what: 'all of a mesh', takeAway: () => removePins(bed.directory) },
  { what: 'all pins, but no entries', takeAway: () => removeTree(versionDirectory(bed.directory)) },
  { what: 'the hooks of the cgroup', takeAway: () => removeTree(linksDirectory()) },
  { what: 'the hooks of a pod', takeAway: () => removeTree(podDirectory(bed.directory, inBed.cookie)) },
  {
    what: 'one hook of a pod',
    takeAway: () => rmSync(join(podDirectory(bed.directory, inBed.cookie), 'egress')),
  },
])('$what that somebody takes away is made anew', async ({ takeAway }) => {
  expect(await refused()).toEqual({ atConnect: true, atDevice: true });
  expect(await capture.sweep()).toEqual([]);
  takeAway();
  expect(await refused()).not.toEqual({ atConnect: true, atDevice: true });
  await capture.sweep();
  expect(await refused()).toEqual({ atConnect: true, atDevice: true });
});

test('a pod that was let go is not captured anew', async () => {
  await capture.remove(pod);
  removePins(bed.directory);
  expect(await capture.sweep()).toEqual([]);
  expect(await refused()).toEqual({ atConnect: false, atDevice: false });
});

function linksDirectory(): string {
  return join(versionDirectory(bed.directory), 'links');
}
