import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { versionDirectory } from '#bpf/pins.ts';
import { createBpfBed } from '#test/kit/bpf-bed.ts';
import type { CapturedPod } from '#ztunnel/capture/capture.ts';
import { createEbpfCapture } from '#ztunnel/capture/ebpf.ts';

test('many pods that come at once leave the node agent time between two of them', async () => {
  await using bed = await createBpfBed('burst');
  const capture = createEbpfCapture(bed);
  capture.install();
  const pods: CapturedPod[] = [];
  for (const label of ['a', 'b', 'c', 'd']) {
    const { netns, ip } = await bed.pod(label);
    const { name: uid, path: netnsPath } = netns;
    pods.push({
      ...{ uid, netnsPath, udp: 'allow', mode: 'strict', refusesPlaintext: false },
      ...{ addresses: [ip], probes: [] },
    });
  }
  const done = Promise.all(pods.map((pod) => capture.apply(pod, 'outbound')));
  const attached = (): number => readdirSync(join(versionDirectory(bed.directory), 'pods')).length;
  const seen = new Set([attached()]);
  while (!seen.has(pods.length)) {
    await setImmediate();
    seen.add(attached());
  }
  expect([...seen]).toEqual([0, 1, 2, 3, 4]);
  await done;
  capture.close();
});
