import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { podKey, SIZES } from '#bpf/layout.ts';
import { installMesh } from '#bpf/programs.ts';
import { createBpfBed, dialOnce } from '#test/kit/bpf-bed.ts';
import type { CapturedPod } from '#ztunnel/capture/capture.ts';
import { createEbpfCapture } from '#ztunnel/capture/ebpf.ts';

const PROGRAM = join(import.meta.dirname, '../kit/programs/enrol.ts');

test('an agent that is killed at any moment leaves no pod captured by half, and the next one goes on', async () => {
  await using bed = await createBpfBed('killed');
  const { netns, ip, neighbourIp, cookie } = await bed.pod('pod');
  const pod: CapturedPod = {
    ...{ uid: 'u1', netnsPath: netns.path, udp: 'allow', mode: 'strict', refusesPlaintext: false },
    ...{ addresses: [ip], probes: [{ from: neighbourIp, port: 8080 }] },
  };
  const { directory, cgroup } = bed;
  const seen = new Set<string>();
  for (let round = 0; round < 10; round++) {
    const agent = spawn(
      process.execPath,
      [PROGRAM, JSON.stringify({ directory, cgroup }), JSON.stringify(pod)],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    await once(agent.stdout, 'readable');
    await delay(8 * round);
    agent.kill('SIGKILL');
    await once(agent, 'exit');

    const mesh = installMesh(bed);
    if (mesh.maps.pods.lookup(podKey(cookie), Buffer.alloc(SIZES.pod))) {
      expect(mesh.isAttached(cookie)).toBe(true);
      expect(mesh.maps.counters.lookup(podKey(cookie), Buffer.alloc(SIZES.counters))).toBe(true);
    }
    mesh.close();

    const next = createEbpfCapture(bed);
    const scope = await next.scopeOf(pod);
    seen.add(scope ?? 'none');
    const isCaptured = scope === 'both' || scope === 'outbound';
    const dial = (): Promise<string> => dialOnce(netns, `${neighbourIp}:1`, cgroup);
    expect([scope, await dial()]).toEqual([scope, isCaptured ? 'EPERM' : 'ECONNREFUSED']);
    await next.apply(pod, 'both');
    expect(await dial()).toBe('EPERM');
    await dialOnce(netns, `${neighbourIp}:1`);
    expect((await next.counters(pod)).get('egress_tcp')).toBeGreaterThan(0);
    await next.remove(pod);
    expect(await dial()).toBe('ECONNREFUSED');
    const left = installMesh(bed);
    expect([left.attachedPods(), left.maps.pods.keys(), left.maps.probes.keys()]).toEqual([[], [], []]);
    left.close();
    next.close();
  }
  expect(seen.size).toBeGreaterThan(1);
});
