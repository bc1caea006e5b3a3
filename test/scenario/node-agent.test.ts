import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { probeTcp } from '#test/kit/netns-probe.ts';
import { type BedPod, makeNodeBed, type NodeBed } from '#test/kit/node-bed.ts';
import { loadCommand, serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, serviceYaml } from '#test/kit/yaml.ts';

describe.each(['ebpf', 'nftables'] as const)('captured by %s', (method) => {
  let bed: NodeBed;
  let web: BedPod;
  let catalog: BedPod;
  const SERVICES = serviceYaml('shop', 'catalog') + serviceYaml('shop', 'nobody');
  const mesh = (ambient: boolean): string => namespaceYaml('shop', ambient) + SERVICES;

  beforeAll(async () => {
    bed = await makeNodeBed(`agent-${method}`, mesh(false), method);
    web = await bed.addPod('shop', 'web-1', 'web');
    catalog = await bed.addPod('shop', 'catalog-1', 'catalog');
    const [command = '', ...args] = serverCommand('catalog-1');
    catalog.netns.spawn(command, args, { stdio: 'inherit' });
    bed.startAgent();
    await bed.until(web, 'out');
    await eventually(
      'the server listens',
      async () => (await probeTcp(web.netns, { host: '10.244.1.3', port: 8080 })) === 'connected',
    );
  });

  afterAll(async () => {
    await bed?.[Symbol.asyncDispose]();
  });

  function redirection(pod: BedPod): string | undefined {
    const path = join(bed.state, 'pods', `${pod.namespace}_${pod.name}.redirection`);
    return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  }

  /** Addresses of a name as a pod's resolver gives them. */
  async function resolve(
    pod: BedPod,
    name: string,
    type: 'A' | 'AAAA',
    server = '10.244.1.1',
  ): Promise<string> {
    const script = `const r = new (require('dns').Resolver)({ tries: 1, timeout: 2000 }); r.setServers([process.argv[1]]);
      r.resolve(process.argv[2], process.argv[3], (e, a) => console.log(e ? e.code : a.join()))`;
    return (await pod.netns.exec(process.execPath, ['-e', script, server, name, type])).trim();
  }

  test('pods outside the mesh resolve names and reach services, over IPv4 and IPv6', async () => {
    const vip = await eventually('the name is known', async () => {
      const answer = await resolve(web, 'catalog', 'A');
      return answer.startsWith('10.96.') && answer;
    });
    const vip6 = await resolve(web, 'catalog.shop.svc.cluster.local', 'AAAA', 'fd00:10:244:1::1');
    expect(vip6).toMatch(/^fd00:10:96::/);
    vips = { v4: vip, v6: vip6 };
    for (const host of [vip, vip6]) {
      await eventually(
        'it is translated',
        async () => (await probeTcp(web.netns, { host, port: 8080 })) === 'connected',
      );
      expect(await probeTcp(web.netns, { host, port: 9000 })).toBe('connected');
      expect(await probeTcp(catalog.netns, { host, port: 8080 })).toBe('connected'); // itself
      expect(await probeTcp(web.netns, { host, port: 8081 })).toBe('ECONNREFUSED');
    }
    const answer = JSON.parse(
      await web.netns.exec('curl', ['-sS', '--max-time', '5', `http://${vip}:8080/`]),
    );
    expect(answer.remoteAddress).toBe('::ffff:10.244.1.2');
  });

  test('a service without endpoints refuses at once', async () => {
    const nobody = await resolve(web, 'nobody.shop', 'A');
    expect(nobody).toMatch(/^10\.96\./);
    expect(await probeTcp(web.netns, { host: nobody, port: 8080 })).toBe('ECONNREFUSED');
  });

  test('a name outside of the mesh fails when there is no name server', async () => {
    expect(await resolve(web, 'example.org', 'A')).toBe('ESERVFAIL');
  });

  test('without a ztunnel a pod that should be in the mesh is pending, and nothing is captured', async () => {
    bed.configure(mesh(true));
    await bed.until(web, 'pending');
    await eventually('the control plane is told', () => redirection(web) === 'pending');
    expect(await probeTcp(web.netns, { host: '10.244.1.3', port: 8080 })).toBe('connected');
    bed.configure(mesh(false));
    await bed.until(web, 'out');
    await eventually('the control plane is told', () => redirection(web) === undefined);
  });

  interface Outcome {
    readonly ok: number;
    readonly errors: readonly string[];
  }

  /** Of catalog; asked for while nobody is captured, since the stand-in for a ztunnel knows no names. */
  let vips: { readonly v4: string; readonly v6: string };

  /** A steady load from web to catalog, by address and by VIP. */
  async function startLoad(): Promise<{
    more: () => Promise<void>;
    stop: () => Promise<readonly Outcome[]>;
  }> {
    const targets = [vips.v4, `[${vips.v6}]`, '10.244.1.3'];
    const files = targets.map((_, index) => join(bed.state, `load-${index}.json`));
    for (const file of files) rmSync(`${file}.live`, { force: true });
    const loads = targets.map((host, index) => {
      const tcp = `${host.replace(/[[\]]/g, '')}:9000`;
      const [command = '', ...args] = loadCommand(`http://${host}:8080/`, tcp, files[index] ?? '');
      return web.netns.spawn(command, args, { stdio: 'inherit' });
    });
    const read = (file: string): Record<string, Outcome> => JSON.parse(readFileSync(file, 'utf8'));
    const calls = (): readonly number[] => files.map((file) => read(`${file}.live`)['short']?.ok ?? 0);
    await eventually('the load runs', () => calls().every((count) => count > 10));
    return {
      more: async () => {
        const before = calls();
        await eventually('more calls', () =>
          calls().every((count, index) => count > (before[index] ?? 0) + 10),
        );
      },
      stop: async () => {
        await Promise.all(loads.map((load) => endProcess(load)));
        return files.flatMap((file) => Object.values(read(file)));
      },
    };
  }

  /** Both pods are held to the mesh. The stand-in for a ztunnel opens no tunnels: catalog's ports take plaintext. */
  const isStrict =
    peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}') +
    peerAuthenticationYaml(
      'shop',
      'catalog',
      `{selector: {matchLabels: {app: catalog}}, mtls: {mode: STRICT},
        portLevelMtls: {8080: {mode: PERMISSIVE}, 9000: {mode: PERMISSIVE}}}`,
    );

  test.each([
    { policy: 'PERMISSIVE', more: '' },
    { policy: 'STRICT', more: isStrict },
  ])(
    'a namespace enters and leaves the mesh under load within a second each, and no call fails ($policy)',
    async ({ more }) => {
      await using ztunnel = bed.startRelayZtunnel();
      const load = await startLoad();
      const pods = [web, catalog];
      for (let turn = 0; turn < 2; turn++) {
        let start = performance.now();
        bed.configure(mesh(true) + more);
        for (const pod of pods) await bed.until(pod, 'enrolled');
        expect(performance.now() - start).toBeLessThan(4_000);
        expect(pods.map(redirection)).toEqual(['enabled', 'enabled']);
        expect([...ztunnel.pods()].sort()).toEqual(['uid-catalog-1', 'uid-web-1']);
        await load.more();

        start = performance.now();
        bed.configure(mesh(false) + more);
        await eventually('both are announced as outside', () =>
          pods.every((pod) => redirection(pod) === undefined),
        );
        expect(performance.now() - start).toBeLessThan(4_000);
        await load.more();
      }
      const outcomes = await load.stop();
      expect(outcomes.map(({ errors }) => errors)).toEqual(outcomes.map(() => []));
      for (const pod of pods) {
        await bed.until(pod, 'out');
        expect(await pod.netns.exec('nft', ['list', 'ruleset'])).toBe('');
      }
      expect(ztunnel.pods()).toEqual([]);
      expect(ztunnel.connections().length).toBeGreaterThan(20);
    },
  );

  test('a node agent that is killed leaves pods as they are, and the next one takes them over', async () => {
    await using ztunnel = bed.startRelayZtunnel();
    bed.configure(mesh(true));
    await bed.until(web, 'enrolled');
    const load = await startLoad();
    await bed.stopAgent('SIGKILL');
    await load.more();
    bed.startAgent();
    await eventually('it has read the orders', () => bed.report().every(({ state }) => state === 'enrolled'));
    await load.more();
    expect([...ztunnel.pods()].sort()).toEqual(['uid-catalog-1', 'uid-web-1']);
    bed.configure(mesh(false));
    await eventually('released', () => redirection(web) === undefined);
    await load.more();
    const outcomes = await load.stop();
    expect(outcomes.map(({ errors }) => errors)).toEqual(outcomes.map(() => []));
    await bed.until(web, 'out');
  });

  test('what a pod that is no more was said to be is forgotten', async () => {
    const stale = join(bed.state, 'pods/shop_former-1.redirection');
    writeFileSync(stale, 'enabled');
    await bed.stopAgent('SIGTERM');
    bed.startAgent();
    await eventually('it is swept', () => !existsSync(stale));
  });

  test('a captured pod whose ztunnel has gone is closed or open as it says, and works again with the next one', async () => {
    const first = bed.startRelayZtunnel();
    bed.configure(mesh(true) + isStrict);
    for (const pod of [web, catalog]) await bed.until(pod, 'enrolled');
    await first[Symbol.asyncDispose]();
    const dial = (): Promise<string> => probeTcp(web.netns, { host: '10.244.1.3', port: 8080 });
    expect(await dial()).toBe(method === 'ebpf' ? 'EPERM' : 'ECONNREFUSED');
    expect(redirection(web)).toBe('enabled');
    bed.configure(mesh(true));
    // Packet rules close every pod.
    const without = method === 'ebpf' ? 'connected' : 'ECONNREFUSED';
    await eventually('open or closed', async () => (await dial()) === without);
    await using next = bed.startRelayZtunnel();
    await eventually('served again', () => next.pods().length === 2);
    expect(await dial()).toBe('connected');
  });

  test('a pod that is gone is forgotten, everywhere', async () => {
    await using ztunnel = bed.startRelayZtunnel();
    const brief = await bed.addPod('shop', 'brief-1', 'brief');
    await bed.until(brief, 'enrolled');
    expect(ztunnel.pods()).toContain(brief.uid);
    await bed.removePod(brief);
    await eventually('forgotten', () => bed.report().every(({ uid }) => uid !== brief.uid));
    expect(ztunnel.pods()).not.toContain(brief.uid);
    expect(redirection(brief)).toBeUndefined();
  });
});
