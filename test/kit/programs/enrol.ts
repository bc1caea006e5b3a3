/**
 * A node agent that brings a pod in and out again and again: `node enrol.ts OPTIONS POD`, both JSON (EbpfOptions, CapturedPod).
 * Prints a blank when it has begun, and ends when it is killed.
 */
import type { CapturedPod } from '#ztunnel/capture/capture.ts';
import { createEbpfCapture, type EbpfOptions } from '#ztunnel/capture/ebpf.ts';
import { warmThreadPool } from '#ztunnel/capture/in-pod-sockets.ts';

const [, , options = '', text = ''] = process.argv;
const pod = JSON.parse(text) as CapturedPod;
await warmThreadPool();
const capture = createEbpfCapture(JSON.parse(options) as EbpfOptions);
capture.install();
process.stdout.write(' ');
for (;;) {
  for (const scope of ['both', 'outbound', 'both', 'nothing'] as const) await capture.apply(pod, scope);
  await capture.remove(pod);
}
