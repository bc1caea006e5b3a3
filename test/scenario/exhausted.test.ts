import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import os from 'node:os';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createNetns, type Netns } from '#test/kit/netns.ts';
import { closeDescriptor, openNamespace, warmThreadPool } from '#ztunnel/capture/in-pod-sockets.ts';
import { NativeError } from '#ztunnel/capture/native.ts';
import { dialled } from '#ztunnel/dial.ts';
import { explainExhaustion } from '#ztunnel/exhausted.ts';
import { openPodSockets } from '#ztunnel/pod-sockets.ts';

let pod: Netns;
let netnsFd: number;

beforeAll(async () => {
  await warmThreadPool();
  pod = await createNetns('exhausted');
  netnsFd = openNamespace(pod.path);
});

afterAll(async () => {
  if (netnsFd !== undefined) closeDescriptor(netnsFd);
  await pod?.remove();
});

test.each(['127.0.0.1', '::1'])('ports of a pod that have run out are named: %s', async (ip) => {
  await pod.exec('sh', ['-c', 'echo "50000 50003" > /proc/sys/net/ipv4/ip_local_port_range']);
  const sockets = openPodSockets(netnsFd, { fabric: [] }, { name: 'pod shop/web' });
  const server = net.createServer(() => undefined);
  sockets.listen(server, 7000);
  await once(server, 'listening');
  await using opened = new AsyncDisposableStack();
  opened.defer(() => void server.close());
  const dial = async (): Promise<void> => {
    const socket = await dialled(() => sockets.dialOutside({ ip, port: 7000 }), 2000);
    opened.defer(() => void socket.destroy());
  };
  for (let index = 0; index < 4; index++) await dial();
  const to = ip === '::1' ? '[::1]:7000' : '127.0.0.1:7000';
  await expect(dial()).rejects.toMatchObject({
    code: 'FAILED',
    message:
      `connection failed: pod shop/web has no port left for connections to ${to}: all 4 (50000 to 50003) are in use or closing; ` +
      'widen net.ipv4.ip_local_port_range there, or keep connections open instead of making new ones',
    cause: { name: 'ExhaustedError', code: 'EADDRNOTAVAIL' },
  });
});

test('an address that is not there is no lack of ports', () => {
  const error = new NativeError('bind to 10.9.9.9 port 0', os.constants.errno.EADDRNOTAVAIL);
  const attempt = { from: 'pod shop/web', netnsFd, to: { ip: '10.9.9.9', port: 7000 } };
  expect(explainExhaustion(error, attempt)).toBe(error);
});

test('descriptors that have run out are named', async () => {
  const said = await runWithFewDescriptors(`
    import { openNamespace, warmThreadPool } from ${module('capture/in-pod-sockets.ts')};
    import { openPodSockets } from ${module('pod-sockets.ts')};
    await warmThreadPool();
    const sockets = openPodSockets(openNamespace(${JSON.stringify(pod.path)}), { fabric: [] }, { name: 'pod shop/web' });
    try {
      for (;;) sockets.dial({ ip: '127.0.0.1', port: 7000 }).on('error', () => undefined);
    } catch (error) {
      console.log(error.name, error.code, error.message);
      process.exit();
    }`);
  expect(said).toBe(
    'ExhaustedError EMFILE no connection of pod shop/web to 127.0.0.1:7000 can be made: ' +
      'all 64 descriptors of this process are in use; raise its limit of open files\n',
  );
});

test('a resolver lets go of sockets that it shares also when descriptors have run out', async () => {
  const said = await runWithFewDescriptors(`
    import { openSync } from 'node:fs';
    import { bindUdp, warmThreadPool } from ${module('capture/in-pod-sockets.ts')};
    import { serveDns } from ${module('dns/serve.ts')};
    await warmThreadPool();
    const fd = bindUdp(undefined, { ip: '127.0.0.1', port: 0 });
    const server = await serveDns({ udp: [{ fd, family: 4 }], tcp: [] });
    try {
      for (;;) openSync('/dev/null');
    } catch {
      await server.close({ shared: true });
      console.log('closed');
      process.exit();
    }`);
  expect(said).toBe('closed\n');
});

function module(path: string): string {
  return JSON.stringify(fileURLToPath(new URL(`../../ztunnel/${path}`, import.meta.url)));
}

/** What a program says that may have 64 descriptors. */
async function runWithFewDescriptors(source: string): Promise<string> {
  const command = 'ulimit -n 64; exec "$0" --input-type=module -e "$1"';
  return await text(spawn('sh', ['-c', command, process.execPath, source]).stdout);
}
