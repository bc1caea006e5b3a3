import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { AuthorityReport } from '#control-plane/authority-report.ts';
import { callFrom } from '#test/kit/calls.ts';
import { endProcess, mustRun, runCommand } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, TULLE } from '#test/kit/mesh.ts';
import { type LoadReport, loadCommand, serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, serviceYaml } from '#test/kit/yaml.ts';

/** The authority changes under load: two nodes, one service behind a waypoint, one that is not, one on the caller's node. */
let mesh: Mesh;

beforeAll(async () => {
  const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
  const services = serviceYaml('shop', 'catalog') + serviceYaml('shop', 'beside') + BEHIND_WAYPOINT;
  mesh = await openMesh({
    files: { 'mesh.yaml': namespaceYaml('shop', true) + services + strict + GATEWAY },
    flags: ['--svid-ttl', '10s'],
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

/** Runs steady loads to all three services while something happens, and tells what failed. */
async function failuresDuring(action: () => Promise<void>): Promise<readonly string[]> {
  loads += 1;
  const running = await Promise.all(
    ['catalog', 'echo', 'beside'].map(async (service) => {
      const name = `load-${service}-${loads}`;
      const file = join(mesh.directory, `${name}.json`);
      const command = loadCommand(`http://${service}.shop:8080/`, `${service}.shop:9000`, file);
      const { child } = await mesh.run({ namespace: 'shop', name, node: 'n1', command }, true);
      const calls = (): number => (JSON.parse(readFileSync(`${file}.live`, 'utf8')) as LoadReport).short.ok;
      return { service, child, file, calls };
    }),
  );
  const more = async (): Promise<void> => {
    const before = running.map(({ calls }) => calls());
    await eventually(
      'the loads go on',
      () => running.every(({ calls }, index) => calls() > (before[index] ?? 0) + 20),
      30_000,
    );
  };
  await eventually('the loads run', () => running.every(({ calls }) => calls() > 20), 30_000);
  await action();
  await more();
  return await Promise.all(
    running.map(async ({ service, child, file }) => {
      await endProcess(child);
      const { short, keepAlive, long } = JSON.parse(readFileSync(file, 'utf8')) as LoadReport;
      return [short, keepAlive, long].flatMap(({ errors }, index) =>
        errors.map((error) => `${service} ${index} ${error}`),
      );
    }),
  ).then((errors) => errors.flat());
}

function ca(...args: readonly string[]): ReturnType<typeof runCommand> {
  return runCommand([TULLE, 'ca', ...args, '--state', mesh.state], 60_000);
}

async function authorities(): Promise<AuthorityReport> {
  const { code, stdout, stderr } = await ca('list', '-o', 'json');
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as AuthorityReport;
}

const isPhase = async (phase: 'distributing' | 'retiring' | undefined): Promise<boolean> => {
  try {
    return (await authorities()).rotation?.phase === phase;
  } catch {
    return false; // The control plane is not back yet.
  }
};

const signingRoot = ({ authorities }: AuthorityReport): string | undefined =>
  authorities.find(({ role, phase }) => role === 'root' && phase === 'signing')?.serial;

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
    const [caller, other] = await longCallers([service, service === 'catalog' ? 'beside' : 'catalog']);
    if (caller === undefined || other === undefined) throw new Error('a caller is missing');
    expect((await ca('revoke', identity)).code).toBe(0);
    await eventually('the open connection is cut', () => caller.failures() > 0, 1000);
    const ok = caller.ok();
    const refused = await mesh.exec('shop/web', ['curl', '-sS', '-m', '8', url]);
    expect(refused.code, refused.stdout).not.toBe(0);
    expect([caller.ok(), other.failures()]).toEqual([ok, 0]);

    await killControlPlane();
    const revoked = await eventually('it answers again', async () => (await authorities()).revoked, 20_000);
    expect(revoked.map((each) => each.identity)).toEqual([identity]);
    const still = await mesh.exec('shop/web', ['curl', '-sS', '-m', '8', url]);
    expect(still.code, still.stdout).not.toBe(0);
    expect(other.failures()).toBe(0);

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
  const [caller] = await longCallers(['catalog']);
  const serial = async (): Promise<string> => {
    const { workloads } = await mesh.status();
    return workloads.find(({ name }) => name === 'catalog')?.certificate?.serial ?? '';
  };
  const before = await serial();
  expect((await ca('revoke', before)).code).toBe(0);
  await eventually('the open connection is cut', () => (caller?.failures() ?? 0) > 0, 1000);
  const { code } = await mesh.exec('shop/web', ['curl', '-sSf', '-m', '5', 'http://catalog.shop:8080/']);
  expect(code).toBe(0);
  expect(await serial()).not.toBe(before);
  expect((await ca('revoke', 'ff')).stderr).toContain('was issued');
  await caller?.end();
});

interface LongCaller {
  readonly ok: () => number;
  readonly failures: () => number;
  readonly end: () => Promise<void>;
}

/** Callers that hold one connection open and use it all the time. */
async function longCallers(services: readonly string[]): Promise<readonly LongCaller[]> {
  loads += 1;
  const callers = services.map(async (service) => {
    const name = `long-${service}-${loads}`;
    const file = join(mesh.directory, `${name}.json`);
    const command = loadCommand(`http://${service}.shop:8080/`, `${service}.shop:9000`, file);
    const { child } = await mesh.run({ namespace: 'shop', name, node: 'n1', command }, true);
    const live = (): LoadReport => JSON.parse(readFileSync(`${file}.live`, 'utf8')) as LoadReport;
    await eventually('it calls', () => live().long.ok > 5, 20_000);
    return {
      ok: () => live().long.ok,
      failures: () => live().long.failed,
      end: async () => void (await endProcess(child)),
    };
  });
  return await Promise.all(callers);
}

test('an RSA authority with an intermediate takes over under load, and fails no request', {
  timeout: 240_000,
}, async () => {
  const at = (name: string): string => join(mesh.directory, name);
  await makeAuthority(at);
  const files = ['--cert', at('sub.pem'), '--key', at('sub.key')];
  const refused = await ca('import', ...files);
  expect(refused).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('whose certificate is not there'),
  });
  const errors = await failuresDuring(async () => {
    expect((await ca('import', ...files, '--root', at('root.pem'))).code).toBe(0);
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

/** As an operator would, with openssl. */
async function makeAuthority(at: (name: string) => string): Promise<void> {
  const usage = 'keyUsage=critical,keyCertSign,cRLSign';
  const rsa = (bits: number): readonly string[] => ['-newkey', `rsa:${bits}`, '-nodes'];
  await mustRun([
    ...['openssl', 'req', '-x509', ...rsa(3072), '-keyout', at('root.key'), '-out', at('root.pem')],
    ...['-subj', '/CN=root', '-days', '30', '-addext', usage],
  ]);
  await mustRun([
    ...['openssl', 'req', ...rsa(2048), '-keyout', at('sub.key'), '-out', at('sub.csr'), '-subj', '/CN=sub'],
  ]);
  writeFileSync(at('sub.cnf'), `basicConstraints=critical,CA:TRUE,pathlen:0\n${usage}\n`);
  await mustRun([
    ...['openssl', 'x509', '-req', '-in', at('sub.csr'), '-CA', at('root.pem'), '-CAkey', at('root.key')],
    ...['-CAcreateserial', '-days', '20', '-extfile', at('sub.cnf'), '-out', at('sub.pem')],
  ]);
}

const BEHIND_WAYPOINT = serviceYaml('shop', 'echo').replace(
  'name: echo,',
  'name: echo, labels: {istio.io/use-waypoint: waypoint},',
);

const GATEWAY = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: tulle-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`;
