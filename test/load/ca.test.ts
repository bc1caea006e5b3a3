import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  authoritiesOf,
  isInPhase,
  makeOperatorAuthority,
  type RotationPhase,
  runCa,
  signingRoot,
} from '#test/kit/authority.ts';
import { callFrom } from '#test/kit/calls.ts';
import { eventually } from '#test/kit/eventually.ts';
import { failuresOf, type Load, startLoad } from '#test/kit/load.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import {
  BEHIND_WAYPOINT,
  namespaceYaml,
  peerAuthenticationYaml,
  serviceYaml,
  waypointYaml,
} from '#test/kit/yaml.ts';

/** The authority changes under load: two nodes, one service behind a waypoint, one that is not, one on the caller's node. */
let mesh: Mesh;

beforeAll(async () => {
  const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
  const services = serviceYaml('shop', 'catalog') + serviceYaml('shop', 'beside');
  const behind = serviceYaml('shop', 'echo', BEHIND_WAYPOINT) + waypointYaml('shop');
  mesh = await openMesh({
    files: { 'mesh.yaml': namespaceYaml('shop', true) + services + behind + strict },
    flags: ['--svid-ttl', '20s'],
  });
  for (const [name, node] of [
    ['catalog', 'n2'],
    ['echo', 'n2'],
    ['beside', 'n1'],
  ] as const) {
    const command = serverCommand(name);
    await mesh.run(
      { namespace: 'shop', name, serviceAccount: name, node, labels: { app: name }, command },
      true,
    );
  }
  await mesh.run({ namespace: 'shop', name: 'web', node: 'n1', command: ['sleep', 'infinity'] }, true);
  await eventually(
    'requests are answered through the waypoint',
    async () => {
      const [reply] = await callFrom(mesh, 'shop/web', [{ url: 'http://echo.shop:8080/' }]);
      return reply?.status === 200;
    },
    30_000,
  );
}, 120_000);

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

let loads = 0;

/** A steady load of a service. */
function startLoadOf(service: string): Promise<Load> {
  loads += 1;
  const to = { url: `http://${service}.shop:8080/`, tcp: `${service}.shop:9000` };
  return startLoad(mesh, { namespace: 'shop', name: `load-${service}-${loads}`, node: 'n1', ...to });
}

/** Runs steady loads to all three services while something happens, and tells what failed. */
async function failuresDuring(action: () => Promise<void>): Promise<readonly string[]> {
  const services = ['catalog', 'echo', 'beside'];
  const running = await Promise.all(services.map(startLoadOf));
  await action();
  await Promise.all(running.map((load) => load.moreCalls(20)));
  const reports = await Promise.all(running.map((load) => load.end()));
  return reports.flatMap((report, index) =>
    failuresOf(report).map((failure) => `${services[index]} ${failure}`),
  );
}

const ca = (...args: readonly string[]): ReturnType<typeof runCa> => runCa(mesh, ...args);
const authorities = (): ReturnType<typeof authoritiesOf> => authoritiesOf(mesh);
const isPhase = (phase: RotationPhase): Promise<boolean> => isInPhase(mesh, phase);

async function killControlPlane(): Promise<void> {
  const { pid } = (await mesh.status()).controlPlane;
  process.kill(pid, 'SIGKILL');
  await mesh.until(
    'the control plane is another',
    ({ controlPlane }) => controlPlane.pid !== pid && controlPlane.pid > 0,
    30_000,
  );
}

test('a rotation under load fails no request', { timeout: 180_000 }, async () => {
  const before = await authorities();
  const errors = await failuresDuring(async () => {
    expect((await ca('rotate')).code).toBe(0);
    expect((await ca('rotate')).stderr).toContain('under way');
    await eventually('the new authority signs', () => isPhase('retiring'), 30_000);
    await eventually('the old root is gone', () => isPhase(undefined), 60_000);
  });
  expect(errors).toEqual([]);
  const after = await authorities();
  expect(after.trusted).toEqual([signingRoot(after)]);
  expect(after.trusted).not.toEqual(before.trusted);
});

test('a control plane that is killed in each phase goes on with it, and fails no request', {
  timeout: 240_000,
}, async () => {
  const before = await authorities();
  const errors = await failuresDuring(async () => {
    expect((await ca('rotate')).code).toBe(0);
    await killControlPlane();
    await eventually('the new authority signs', () => isPhase('retiring'), 60_000);
    const next = signingRoot(await authorities());
    await killControlPlane();
    // On a slow machine the old root's time is over before it is back.
    const again = await eventually('it answers again', authorities, 30_000);
    expect(signingRoot(again)).toBe(next);
    await eventually('the old root is gone', () => isPhase(undefined), 60_000);
    await killControlPlane();
    await eventually('it is still gone', () => isPhase(undefined), 30_000);
  });
  expect(errors).toEqual([]);
  const after = await authorities();
  expect(after.trusted).toEqual([signingRoot(after)]);
  expect(after.trusted).not.toEqual(before.trusted);
});

test.each(['catalog', 'beside'])(
  'the identity of %s is revoked: cut within a second, until that is undone',
  {
    timeout: 120_000,
  },
  async (service) => {
    const identity = `spiffe://cluster.local/ns/shop/sa/${service}`;
    const url = `http://${service}.shop:8080/`;
    const caller = await startLoadOf(service);
    const other = await startLoadOf(service === 'catalog' ? 'beside' : 'catalog');
    const failed = (load: Load): number => load.live().long.failed;
    expect((await ca('revoke', identity)).code).toBe(0);
    await eventually('the open connection is cut', () => failed(caller) > 0, 1000);
    const { ok } = caller.live().long;
    const refused = await mesh.exec('shop/web', ['curl', '-sS', '-m', '8', url]);
    expect(refused.code, refused.stdout).not.toBe(0);
    expect([caller.live().long.ok, failed(other)]).toEqual([ok, 0]);

    await killControlPlane();
    const revoked = await eventually('it answers again', async () => (await authorities()).revoked, 20_000);
    expect(revoked.map((each) => each.identity)).toEqual([identity]);
    const still = await mesh.exec('shop/web', ['curl', '-sS', '-m', '8', url]);
    expect(still.code, still.stdout).not.toBe(0);
    expect(failed(other)).toBe(0);

    expect((await ca('revoke', identity, '--undo')).code).toBe(0);
    const isAnswered = async (): Promise<boolean> =>
      (await mesh.exec('shop/web', ['curl', '-sSf', '-m', '5', url])).code === 0;
    await eventually('calls are answered again', isAnswered, 20_000);
    await Promise.all([caller.end(), other.end()]);
  },
);

test('a certificate that is revoked is cut, and its holder has another at once', {
  timeout: 120_000,
}, async () => {
  const caller = await startLoadOf('catalog');
  const serial = async (): Promise<string> => {
    const { workloads } = await mesh.status();
    return workloads.find(({ name }) => name === 'catalog')?.certificate?.serial ?? '';
  };
  const before = await serial();
  expect((await ca('revoke', before)).code).toBe(0);
  await eventually('the open connection is cut', () => caller.live().long.failed > 0, 1000);
  const { code } = await mesh.exec('shop/web', ['curl', '-sSf', '-m', '5', 'http://catalog.shop:8080/']);
  expect(code).toBe(0);
  expect(await serial()).not.toBe(before);
  expect((await ca('revoke', 'ff')).stderr).toContain('was issued');
  await caller.end();
});

test('an RSA authority with an intermediate takes over under load, and fails no request', {
  timeout: 240_000,
}, async () => {
  const files = await makeOperatorAuthority(mesh.directory);
  const refused = await ca('import', ...files.signing);
  expect(refused).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('whose certificate is not there'),
  });
  const errors = await failuresDuring(async () => {
    expect((await ca('import', ...files.signing, ...files.root)).code).toBe(0);
    await eventually('the new authority signs', () => isPhase('retiring'), 60_000);
    await eventually('the old root is gone', () => isPhase(undefined), 60_000);
  });
  expect(errors).toEqual([]);
  // Neither the control plane nor a waypoint that starts anew minds roots that name no trust domain.
  expect((await mesh.tulle('restart', 'control-plane')).code).toBe(0);
  expect((await mesh.tulle('restart', 'waypoint/shop/waypoint')).code).toBe(0);
  const [reply] = await callFrom(mesh, 'shop/web', [{ url: 'http://echo.shop:8080/' }]);
  expect(reply?.status).toBe(200);
  const { authorities: after, trusted } = await authorities();
  expect(after.map(({ role, subject, keyType }) => [role, subject, keyType])).toEqual([
    ['issuing', 'CN=sub', 'RSA 2048'],
    ['root', 'CN=root', 'RSA 3072'],
  ]);
  expect(trusted).toEqual([after[1]?.serial]);
});
