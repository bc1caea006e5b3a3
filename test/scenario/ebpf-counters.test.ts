import { expect, test } from 'vitest';
import { createBpfBed, dialOnce } from '#test/kit/bpf-bed.ts';
import type { CapturedPod } from '#ztunnel/capture/capture.ts';
import { createEbpfCapture } from '#ztunnel/capture/ebpf.ts';

test('what was refused is counted on while a pod is in the mesh, and anew when it comes back', async () => {
  await using bed = await createBpfBed('counters');
  const { netns, ip, neighbourIp } = await bed.pod('pod');
  const pod: CapturedPod = {
    ...{ uid: 'u1', netnsPath: netns.path, udp: 'allow', mode: 'strict', refusesPlaintext: false },
    ...{ addresses: [ip], probes: [] },
  };
  const capture = createEbpfCapture(bed);
  const counted = async (): Promise<number> => (await capture.counters(pod)).get('egress_tcp') ?? 0;
  try {
    await capture.apply(pod, 'both');
    await dialOnce(netns, `${neighbourIp}:1`);
    const before = await counted();
    expect(before).toBeGreaterThan(0);
    await capture.apply(pod, 'outbound');
    await capture.apply(pod, 'both');
    expect(await counted()).toBe(before);

    await capture.apply(pod, 'nothing');
    await capture.apply(pod, 'both');
    expect(await counted()).toBe(0);
  } finally {
    capture.close();
  }
});
