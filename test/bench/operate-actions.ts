import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { mustRun } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Mesh } from '#test/kit/mesh.ts';
import { authorities, ca, processIds, rotated } from '#test/kit/operator.ts';
import { trafficCommand, trafficServerCommand } from '#test/kit/programs/programs.ts';
import type { TrafficLine, TrafficLoop } from '#test/kit/programs/traffic-lines.ts';
import { lineReader } from '#test/kit/traffic.ts';
import { namespaceYaml, policyYaml } from '#test/kit/yaml.ts';
import type { OperateBed } from './operate-bed.ts';

/** Something that an operator does, or that happens to one, while the load goes on. */
export interface Action {
  readonly name: string;
  /** Resolves when it is over; what it returns is a remark for the table. */
  readonly act: (bed: OperateBed) => Promise<string | undefined>;
  /** Planned: nothing may fail, nothing may be cut. Killed: what went through that process is lost, and new connections wait or fail for a moment. */
  readonly kind: 'planned' | 'killed';
  /** Of the mesh: what is about certificates happens where they are short. */
  readonly svidTtl: '10s' | '24h';
}

const ROTATION_MS = 120_000;

/** In turn. */
export const ACTIONS: readonly Action[] = [
  planned('nothing', () => delay(8000)),
  certificates('ca rotate, --svid-ttl 10s', async ({ mesh }) => {
    await done(ca(mesh, 'rotate'));
    await rotated(mesh, ROTATION_MS);
  }),
  certificates('ca import (ECDSA, own root), --svid-ttl 10s', importAuthority),
  certificates('ca revoke IDENTITY of another, --svid-ttl 10s', revokeOther),
  planned('restart ztunnel/n1', ({ mesh }) => restart(mesh, 'ztunnel/n1')),
  planned('restart ztunnel/n2', ({ mesh }) => restart(mesh, 'ztunnel/n2')),
  planned('restart both ztunnels at once', ({ mesh }) => restart(mesh, 'ztunnel/n1', 'ztunnel/n2')),
  planned('restart waypoint', ({ mesh }) => restart(mesh, 'waypoint/shop/waypoint')),
  planned('restart control-plane', async ({ mesh }) => {
    await restart(mesh, 'control-plane');
    await ready(mesh);
  }),
  planned('stop control-plane, 60 s, start', outage),
  planned('policy change: allow more, then less', changePolicies),
  planned('policy change: deny another', denyOther),
  planned('enrol a namespace, release it', enrolNamespace),
  killed('kill -9 node agent of n1', ({ mesh }) => kill(mesh, 'node-agent-n1')),
  killed('kill -9 control-plane', ({ mesh }) => kill(mesh, 'control-plane')),
  killed('kill -9 ztunnel of n1', ({ mesh }) => kill(mesh, 'ztunnel-n1')),
  killed('kill -9 ztunnel of n2', ({ mesh }) => kill(mesh, 'ztunnel-n2')),
  killed('kill -9 waypoint', ({ mesh }) => kill(mesh, 'waypoint-shop_waypoint-0')),
  killed('kill -9 up, and up again', killUp),
];

function planned(name: string, act: (bed: OperateBed) => Promise<unknown>): Action {
  return action(name, 'planned', '24h', act);
}

function certificates(name: string, act: (bed: OperateBed) => Promise<unknown>): Action {
  return action(name, 'planned', '10s', act);
}

function killed(name: string, act: (bed: OperateBed) => Promise<unknown>): Action {
  return action(name, 'killed', '24h', act);
}

function action(
  name: string,
  kind: Action['kind'],
  svidTtl: Action['svidTtl'],
  act: (bed: OperateBed) => Promise<unknown>,
): Action {
  return {
    name,
    kind,
    svidTtl,
    act: async (bed) => {
      const remark = await act(bed);
      return typeof remark === 'string' ? remark : undefined;
    },
  };
}

async function done(command: ReturnType<Mesh['tulle']>): Promise<void> {
  const { code, stderr } = await command;
  if (code !== 0) throw new Error(stderr);
}

async function restart(mesh: Mesh, ...names: readonly string[]): Promise<void> {
  await Promise.all(names.map((name) => done(mesh.tulle('restart', name))));
}

async function ready(mesh: Mesh): Promise<void> {
  await mesh.until('the mesh is ready', (status) => status.ready, 90_000);
}

async function kill(mesh: Mesh, name: string): Promise<void> {
  const pids = (await processIds(mesh)).get(name) ?? [];
  if (pids.length === 0) throw new Error(`there is no process ${name}`);
  for (const pid of pids) process.kill(pid, 'SIGKILL');
  await eventually(
    `there is another ${name}`,
    async () => ((await processIds(mesh)).get(name) ?? []).some((pid) => !pids.includes(pid)),
    30_000,
  );
  await ready(mesh);
}

async function killUp({ mesh }: OperateBed): Promise<string> {
  const before = await processIds(mesh);
  mesh.up.kill('SIGKILL');
  await eventually('up is gone', () => mesh.up.signalCode === 'SIGKILL');
  await mesh.upAgain();
  await ready(mesh);
  const after = await processIds(mesh);
  const kept = [...before].filter(([name, pids]) => pids.every((pid) => after.get(name)?.includes(pid)));
  return `${kept.length} of ${before.size} processes live on`;
}

/** An authority of the operator's own, as openssl makes one. */
async function importAuthority({ mesh }: OperateBed): Promise<void> {
  const at = (file: string): string => join(mesh.directory, file);
  writeFileSync(at('own.cnf'), '[req]\ndistinguished_name=dn\n[dn]\n');
  await mustRun([
    ...[
      'openssl',
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-config',
    ],
    ...[at('own.cnf'), '-keyout', at('own.key'), '-out', at('own.pem'), '-subj', '/CN=own', '-days', '30'],
    ...['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
  ]);
  await done(ca(mesh, 'import', '--cert', at('own.pem'), '--key', at('own.key')));
  await rotated(mesh, ROTATION_MS);
}

const TALK: TrafficLoop = { name: 'tcp', kind: 'tcp', target: 'catalog.shop:9000', pauseMs: 10 };

/** How long another client's open connection lives on after something, by its own clock. */
async function untilCut(bed: OperateBed, name: string, deny: () => Promise<void>): Promise<string> {
  const other = await bed.other(name, [TALK]);
  other.read();
  const start = Date.now();
  await deny();
  const said = Date.now();
  let cutAt = 0;
  await eventually('the other is cut', () => {
    cutAt ||= other.read().find(({ what }) => what === 'cut')?.at ?? 0;
    return cutAt > 0;
  });
  await other.end();
  return `the other is cut ${cutAt - start} ms after the command began (it took ${said - start} ms)`;
}

async function revokeOther(bed: OperateBed): Promise<string> {
  const identity = `spiffe://${(await authorities(bed.mesh)).trustDomain}/ns/shop/sa/mallory`;
  const text = await untilCut(bed, 'mallory', () => done(ca(bed.mesh, 'revoke', identity)));
  await done(ca(bed.mesh, 'revoke', identity, '--undo'));
  return text;
}

async function denyOther(bed: OperateBed): Promise<string> {
  const spec = '{action: DENY, rules: [{from: [{source: {principals: ["*/ns/shop/sa/eve"]}}]}]}';
  const text = await untilCut(bed, 'eve', async () =>
    bed.mesh.write('deny.yaml', policyYaml('shop', 'deny', spec)),
  );
  bed.mesh.remove('deny.yaml');
  return text;
}

/** Policies that always let the load in; each change is waited for. */
async function changePolicies({ mesh }: OperateBed): Promise<void> {
  for (const principals of [
    '"*/ns/shop/sa/load", "*/ns/shop/sa/waypoint"',
    '"*"',
    '"cluster.local/ns/shop/*"',
  ]) {
    const spec = `{rules: [{from: [{source: {principals: [${principals}]}}]}]}`;
    mesh.write('allow.yaml', policyYaml('shop', 'allow', spec));
    await mesh.until('the policy is acknowledged', ({ policies }) =>
      policies.some(({ object, acknowledged }) => object.endsWith('shop/allow') && isWhole(acknowledged)),
    );
    await delay(1000);
  }
  mesh.remove('allow.yaml');
}

/** `2/2` */
function isWhole(acknowledged: string): boolean {
  const [have, of] = acknowledged.split('/');
  return have === of;
}

/** The mesh goes on as it is, and a pod that comes meanwhile says what it waits for. */
async function outage({ mesh }: OperateBed): Promise<string> {
  await done(mesh.tulle('stop', 'control-plane'));
  const start = performance.now();
  const options = { namespace: 'shop', name: 'newcomer', node: 'n2', command: ['sleep', 'infinity'] };
  const coming = mesh.run(options, true);
  coming.catch(() => undefined);
  const waiting = await eventually('it waits', async () => {
    const { workloads } = (await mesh.status()) as unknown as {
      readonly workloads: readonly { readonly name: string; readonly pending: string | null }[];
    };
    return workloads.find(({ name }) => name === 'newcomer')?.pending ?? undefined;
  }).catch(() => 'nothing');
  await delay(Math.max(0, OUTAGE_MS - (performance.now() - start)));
  await done(mesh.tulle('start', 'control-plane'));
  await ready(mesh);
  await mesh.until('it has come', ({ workloads }) =>
    workloads.some(({ name, enrolled, pid }) => name === 'newcomer' && enrolled && pid > 0),
  );
  return `a new pod meanwhile: "${waiting}"`;
}

const OUTAGE_MS = 60_000;

/** A namespace with traffic of its own, which is not to notice. */
async function enrolNamespace({ mesh }: OperateBed): Promise<string> {
  const server = { namespace: 'late', name: 'late-server', node: 'n2', labels: { app: 'late' } };
  const at = await mesh.run({ ...server, command: trafficServerCommand('late') }, false);
  const file = join(mesh.directory, 'late.jsonl');
  const loops: readonly TrafficLoop[] = [
    { name: 'late new', kind: 'new', target: `${at.addresses[0]}:8080`, pauseMs: 10 },
    { name: 'late tcp', kind: 'tcp', target: `${at.addresses[0]}:9000`, pauseMs: 10 },
  ];
  const client = { namespace: 'late', name: 'late-client', node: 'n1' };
  await mesh.run({ ...client, command: trafficCommand({ file, loops }) }, false);
  const read = lineReader<TrafficLine>(file);
  for (const isIn of [true, false]) {
    mesh.write('late.yaml', namespaceYaml('late', isIn));
    await mesh.until('the namespace follows', ({ workloads }) =>
      workloads.filter(({ namespace }) => namespace === 'late').every(({ enrolled }) => enrolled === isIn),
    );
    await delay(2000);
  }
  const bad = read().flatMap((line) => (line.what === 'failed' || line.what === 'cut' ? [line] : []));
  return `its own traffic: ${bad.length} failed or cut${bad[0] === undefined ? '' : ` (${bad[0].error})`}`;
}
