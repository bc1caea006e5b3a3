import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeSigningFiles } from '#certs/make-authority.ts';
import { mustRun } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { ca, processesFolder, processIds, processIdsBelow, rotated } from '#test/kit/operator.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { PYTHON } from '#test/kit/socket-calls.ts';
import {
  BEHIND_WAYPOINT,
  namespaceYaml,
  peerAuthenticationYaml,
  policyYaml,
  serviceYaml,
  waypointYaml,
} from '#test/kit/yaml.ts';

/** The runbook of docs/operations.md: each failure is brought about, and its lines are looked for where they are said to be. */
let mesh: Mesh;
let catalog: WorkloadStatus;

beforeAll(async () => {
  const files = { 'mesh.yaml': MESH };
  mesh = await openMesh({ files, flags: ['--svid-ttl', '20s', '--capture', 'ebpf'] });
  const server = (name: string): Promise<WorkloadStatus> => {
    const options = { namespace: 'shop', name, serviceAccount: name, node: 'n2', labels: { app: name } };
    return mesh.run({ ...options, command: serverCommand(name) }, true);
  };
  catalog = await server('catalog');
  await server('echo');
  const web = { namespace: 'shop', name: 'web', serviceAccount: 'web', node: 'n1' };
  await mesh.run({ ...web, command: ['sleep', 'infinity'] }, true);
  await eventually(
    'both are answered',
    async () => (await call('echo')) === 0 && (await call('catalog')) === 0,
  );
});

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

/** Exit code of curl. */
async function call(service: string): Promise<number> {
  const url = `http://${service}.shop:8080/`;
  return (await mesh.exec('shop/web', ['curl', '-sSf', '-o', '/dev/null', '-m', '8', url])).code;
}

/** Where a line of the runbook can be said. */
const PLACES: Readonly<Record<string, () => Promise<string>>> = {
  status: async () => (await mesh.tulle('status')).stdout,
  'ca list': async () => (await ca(mesh, 'list')).stdout,
  explain: async () =>
    (await mesh.tulle('explain', '--from', 'shop/web', '--to', 'catalog.shop:8080')).stdout,
  "caller's log": async () => errorsOf('n1'),
  'callers elsewhere': async () => errorsOf('n1'),
  "destination's log": async () => errorsOf('n2'),
  'the application': async () => '',
  'any command': async () => (await mesh.tulle('status')).stderr,
  'logs/node-agent-NODE.log': async () => `${mesh.logOf('node-agent-n1')}${mesh.logOf('node-agent-n2')}`,
  'logs/ztunnel-NODE.log': async () => `${mesh.logOf('ztunnel-n1')}${mesh.logOf('ztunnel-n2')}`,
};

function errorsOf(node: string): string {
  return mesh
    .accessLog(node)
    .map((record) => `${String(record['error'])} ${String(record['reason'])}`)
    .join('\n');
}

/** The row of the runbook; its lines by the place where each is said. */
function lines(what: string): readonly (readonly [place: string, line: RegExp])[] {
  const text = readFileSync(join(import.meta.dirname, '../../docs/operations.md'), 'utf8');
  const row = text.split('\n').find((each) => each.split('|')[1]?.trim() === what);
  const cell = row?.split('|')[2] ?? '';
  return linesOf(cell);
}

/** `place`: `line`, or further lines of the place before; what follows in words is not looked for. */
function linesOf(cell: string): readonly (readonly [string, RegExp])[] {
  let place = '';
  return [...cell.matchAll(/(?:(?:^|; )\s*(`[^`]+`|[a-z' ]+): )|`([^`]+)`/g)].flatMap(([, named, line]) => {
    if (named !== undefined) place = named.replaceAll('`', '').trim();
    if (line === undefined || !(place in PLACES)) return [];
    return [[place, lineOf(line)] as const];
  });
}

function lineOf(text: string): RegExp {
  const parts = text.split('…').map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(parts.join('.*'));
}

/** A process that is killed whenever it is back is away for longer and longer, so that it is seen. */
const SAID_MS = 60_000;

/** Waits until every line of the row is said. */
async function isSaid(what: string, except: readonly string[] = []): Promise<void> {
  const wanted = lines(what).filter(([, line]) => !except.some((each) => line.test(each)));
  expect(wanted.length, `lines of "${what}"`).toBeGreaterThan(0);
  for (const [place, line] of wanted) {
    let seen = '';
    const look = async (): Promise<boolean> => {
      seen = (await PLACES[place]?.()) ?? '';
      return line.test(seen);
    };
    await eventually(`${place} says ${line.source}`, look, SAID_MS).catch((cause: unknown) => {
      throw new Error(`${place} does not say ${line.source}:\n${seen.slice(-3000)}`, { cause });
    });
  }
}

async function isReady(): Promise<void> {
  await mesh.until('the mesh is ready', ({ ready }) => ready, 60_000);
  await eventually('calls are answered', async () => (await call('catalog')) === 0, 30_000);
}

function kill(name: string, signal: NodeJS.Signals = 'SIGKILL'): void {
  for (const pid of processIdsBelow(processesFolder(catalog.cgroup)).get(name) ?? [])
    process.kill(pid, signal);
}

/** Kills it whenever it is back, until something is said of it. */
async function killUntil(name: string, isSeen: Promise<void>): Promise<void> {
  let isOver = false;
  const seen = isSeen.finally(() => {
    isOver = true;
  });
  await Promise.all([
    seen,
    eventually(
      `${name} was killed often enough`,
      () => {
        kill(name);
        return isOver;
      },
      SAID_MS,
    ),
  ]);
}

test('a policy denies', { timeout: 120_000 }, async () => {
  const spec = '{action: DENY, rules: [{from: [{source: {principals: ["*/sa/web"]}}]}]}';
  mesh.write('deny.yaml', policyYaml('shop', 'nobody', spec));
  await eventually('the call is refused', async () => (await call('catalog')) === 56);
  await isSaid('a policy denies');
  mesh.remove('deny.yaml');
  await isReady();
});

test('a name is not found', async () => {
  const { stderr } = await mesh.exec('shop/web', ['curl', '-sS', '-m', '8', 'http://nowhere.shop:8080/']);
  const { stdout } = await mesh.tulle('explain', '--from', 'shop/web', '--to', 'nowhere.shop:8080');
  for (const [, line] of lines('a name is not found')) expect(`${stdout}${stderr}`).toMatch(line);
  expect(lines('a name is not found')).toHaveLength(2);
});

test('an identity is revoked', { timeout: 120_000 }, async () => {
  const identity = 'spiffe://cluster.local/ns/shop/sa/web';
  expect((await ca(mesh, 'revoke', identity)).code).toBe(0);
  expect(await call('catalog')).not.toBe(0);
  await isSaid('an identity is revoked');
  expect((await ca(mesh, 'revoke', identity, '--undo')).code).toBe(0);
  await isReady();
});

test('a waypoint is not ready', { timeout: 120_000 }, async () => {
  expect((await mesh.tulle('stop', 'waypoint/shop/waypoint')).code).toBe(0);
  expect(await call('echo')).not.toBe(0);
  await isSaid('a waypoint is not ready');
  expect((await mesh.tulle('start', 'waypoint/shop/waypoint')).code).toBe(0);
  await isReady();
});

test('a ztunnel crashes again and again', { timeout: 120_000 }, async () => {
  const said = isSaid('a ztunnel crashes again and again', ['RESTARTS']);
  const calling = eventually('a call is refused', async () => (await call('catalog')) !== 0, SAID_MS);
  await killUntil(
    'ztunnel-n2',
    Promise.all([said, calling]).then(() => undefined),
  );
  await isReady();
});

test('a node agent is away', { timeout: 120_000 }, async () => {
  await killUntil('node-agent-n1', isSaid('a node agent is away'));
  expect(await call('catalog')).toBe(0);
  await isReady();
});

test('pins were removed by hand', { timeout: 120_000 }, async () => {
  const name = basename(dirname(dirname(catalog.cgroup)));
  const pods = `/sys/fs/bpf/tulle/${name}/v1/pods`;
  for (const pod of readdirSync(pods)) rmSync(join(pods, pod), { recursive: true });
  await isSaid('pins were removed by hand');
  await isReady();
});

test('descriptors run out', { timeout: 120_000 }, async () => {
  const [pid = 0] = processIdsBelow(processesFolder(catalog.cgroup)).get('ztunnel-n2') ?? [];
  const limit = ['prlimit', '--pid', `${pid}`];
  const before = (await mustRun([...limit, '--nofile', '--raw', '--noheadings', '-o', 'SOFT'])).trim();
  await mustRun([...limit, `--nofile=${readdirSync(`/proc/${pid}/fd`).length + 40}:`]);
  const call = { targets: [[catalog.addresses[0], 9000]], count: 200, seconds: 20 };
  await mesh.exec('shop/web', [PYTHON, CROWD, 'call', JSON.stringify(call)], 60_000);
  await isSaid('descriptors, ports or memory run out, or a pod takes too much', ['shortage']);
  await mustRun([...limit, `--nofile=${before}:`]);
  await isReady();
});

test('a rotation does not go on', { timeout: 120_000 }, async () => {
  kill('ztunnel-n2', 'SIGSTOP');
  expect((await ca(mesh, 'rotate')).code).toBe(0);
  await isSaid('a rotation does not go on', ['gets it with the next certificate of ']);
  kill('ztunnel-n2', 'SIGCONT');
  const isOver = async (): Promise<boolean> => (await ca(mesh, 'list')).stdout.includes('no rotation');
  await eventually('it goes on', isOver, 80_000);
  await isReady();
});

test('the authority is about to end', { timeout: 240_000 }, async () => {
  const nowMs = Date.now();
  // Made almost ten years ago, for ten years.
  const old = await makeSigningFiles('cluster.local', nowMs - (10 * 365 - 20) * 24 * 3_600_000);
  const flags = (
    [
      ['cert', old.issuingPem],
      ['key', old.issuingKeyPem],
      ['root', old.rootPem],
    ] as const
  ).flatMap(([flag, pem]) => {
    const path = join(mesh.directory, `old-${flag}.pem`);
    writeFileSync(path, pem);
    return [`--${flag}`, path];
  });
  expect((await ca(mesh, 'import', ...flags)).code).toBe(0);
  await isSaid('the authority is about to end', ['VALID']);
  await rotated(mesh, 80_000);
  expect((await ca(mesh, 'rotate')).code).toBe(0);
  await mesh.until('the next one signs', ({ problems }) =>
    problems.every((one) => one.object !== 'authority'),
  );
  await rotated(mesh, 80_000);
  await isReady();
});

test('the control plane is away, certificates are about to end, and end', { timeout: 180_000 }, async () => {
  expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
  await isSaid('the control plane is away');
  await isSaid('a certificate is about to end');
  const ended = eventually('a call is refused', async () => (await call('catalog')) !== 0, 60_000);
  await eventually('one has ended', () => isSaid('a certificate has ended').then(() => true), 60_000);
  await ended;
  expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
  await isReady();
});

test('`up` was killed, and takes over what runs', { timeout: 120_000 }, async () => {
  const pids = await processIds(mesh);
  mesh.up.kill('SIGKILL');
  await eventually('it is gone', () => mesh.up.signalCode === 'SIGKILL');
  await isSaid('`up` was killed');
  await mesh.upAgain();
  await isReady();
  expect(await processIds(mesh)).toEqual(pids);
});

const CROWD = join(import.meta.dirname, '../kit/programs/crowd.py');

const MESH = [
  namespaceYaml('shop', true),
  peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}'),
  serviceYaml('shop', 'catalog'),
  serviceYaml('shop', 'echo', BEHIND_WAYPOINT),
  waypointYaml('shop'),
].join('');
