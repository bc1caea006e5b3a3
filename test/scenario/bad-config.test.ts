import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';

let mesh: Mesh;

beforeAll(async () => {
  mesh = await openMesh({
    files: { 'mesh.yaml': namespaceYaml('shop', true) + serviceYaml('shop', 'catalog') },
  });
  await mesh.run(
    { namespace: 'shop', name: 'catalog-1', labels: { app: 'catalog' }, command: serverCommand('c') },
    true,
  );
  await mesh.run(
    { namespace: 'shop', name: 'web-1', serviceAccount: 'web', command: ['sleep', 'infinity'] },
    true,
  );
});

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

const call = async (): Promise<number> =>
  (await mesh.exec('shop/web-1', ['curl', '-sS', '-m', '5', '-o', '/dev/null', 'http://catalog.shop:8080/']))
    .code;

test('a file that does not parse is named with its place, and what it held stays in force', async () => {
  mesh.write('extra.yaml', serviceYaml('shop', 'extra'));
  await mesh.until('the service is there', ({ services }) => services.some(({ name }) => name === 'extra'));
  mesh.write('extra.yaml', 'apiVersion: v1\nkind: Service\nmetadata: {name: extra, namespace: [\n');
  const { problems, services } = await mesh.until(
    'the problem is reported',
    (status) => status.problems.length > 0,
  );
  expect(problems[0]?.position).toMatch(/extra\.yaml:\d+:\d+$/);
  expect(problems[0]?.effect).toMatch(/last good/);
  expect(services.map(({ name }) => name)).toContain('extra');
  mesh.remove('extra.yaml');
  await mesh.until('the service is gone', (status) => status.services.every(({ name }) => name !== 'extra'));
});

test('a policy that becomes wrong keeps its last good version', async () => {
  const good = policyYaml('shop', 'p', '{rules: [{from: [{source: {principals: ["*/sa/web"]}}]}]}');
  mesh.write('policy.yaml', good);
  await mesh.until('the policy is known', ({ policies }) =>
    policies.some(({ object }) => object === 'AuthorizationPolicy shop/p'),
  );
  mesh.write('policy.yaml', policyYaml('shop', 'p', '{action: NONSENSE}'));
  const { problems } = await mesh.until('the problem is reported', (status) => status.problems.length > 0);
  expect(problems[0]).toMatchObject({ object: 'AuthorizationPolicy shop/p', path: 'spec.action' });
  expect(await call()).toBe(0);
  mesh.remove('policy.yaml');
  await mesh.until('no problem is left', (status) => status.problems.length === 0);
});

test('two services with one VIP are both named', async () => {
  const withVip = (name: string): string =>
    `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: shop}\nspec: {clusterIP: 10.96.7.7, selector: {app: ${name}}, ports: [{port: 80}]}\n---\n`;
  mesh.write('vips.yaml', withVip('one') + withVip('two'));
  const { problems } = await mesh.until('the problem is reported', (status) =>
    status.problems.some(({ message }) => message.includes('10.96.7.7')),
  );
  const text = problems.map(({ object, message }) => `${object} ${message}`).join('\n');
  expect(text).toMatch(/shop\/one/);
  expect(text).toMatch(/shop\/two/);
  mesh.remove('vips.yaml');
  await mesh.until('no problem is left', (status) => status.problems.length === 0);
});

test('a selector that matches nothing is a warning, nothing more', async () => {
  mesh.write(
    'none.yaml',
    policyYaml('shop', 'none', '{selector: {matchLabels: {app: nobody}}, action: DENY, rules: [{}]}'),
  );
  await mesh.until('the warning is there', (status) =>
    status.problems.some(({ object }) => object === 'AuthorizationPolicy shop/none'),
  );
  expect(await call()).toBe(0);
  mesh.remove('none.yaml');
});

test('garbage on any listener of a workload disturbs nothing', async () => {
  const { stdout } = await mesh.exec(
    'shop/web-1',
    [
      'python3',
      '-c',
      `import socket,os
ip=socket.gethostbyname('catalog.shop')
for port in (15001,15006,15008,15053,15012,15020,15021,15000):
    for host in ('127.0.0.1','10.240.0.2','10.240.0.11','10.240.0.12'):
        try:
            s=socket.create_connection((host,port),1); s.settimeout(0.3); s.sendall(os.urandom(4096)); s.recv(100); s.close()
        except OSError: pass
print('done')`,
    ],
    60_000,
  );
  expect(stdout.trim()).toBe('done');
  expect(await call()).toBe(0);
  const { nodes, controlPlane } = await mesh.status();
  expect(nodes.map((node) => node.ztunnel?.restarts)).toEqual(nodes.map(() => 0));
  expect(controlPlane.restarts).toBe(0);
});
