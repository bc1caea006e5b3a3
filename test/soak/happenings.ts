import { setTimeout as delay } from 'node:timers/promises';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { Mesh } from '#test/kit/mesh.ts';
import { ca, processIds, rotated } from '#test/kit/operator.ts';
import { trafficServerCommand } from '#test/kit/programs/programs.ts';
import { startTraffic } from '#test/kit/traffic.ts';
import { policyYaml } from '#test/kit/yaml.ts';
import { routeYaml, type SoakBed } from './bed.ts';

/**
 * Something that happens while the load goes on. `planned`: nothing may fail or be cut by it. `killed`: what goes through the process is
 * lost, and new connections may fail until it is back, {@link GAP_MS} at most.
 */
export interface Happening {
  readonly name: string;
  readonly kind: 'planned' | 'killed';
  /** `replace`: a process is replaced by it; `churn`: processes stay. */
  readonly of: 'replace' | 'churn';
  readonly happen: (bed: SoakBed) => Promise<Expected | undefined>;
}

/** What has to hold from `since` to `until` (milliseconds of the clock): who may answer, or that nobody does. */
export interface Expected {
  readonly since: number;
  readonly until: number;
  readonly what: 'denied' | 'allowed' | { readonly answeredBy: readonly string[] };
}

/** How long a process that was killed may be missed, on a machine that is busy. */
export const GAP_MS = 10_000;

/** A change of configuration is in force within this, on a machine that is busy. */
const IN_FORCE_MS = 2000;
const HOLDS_MS = 3000;

export const HAPPENINGS: readonly Happening[] = [
  churn('a pod and its caller come and go', comeAndGo),
  churn('guarded is denied', ({ mesh }) => {
    const spec = '{action: DENY, selector: {matchLabels: {app: guarded}}, rules: [{}]}';
    mesh.write('guard.yaml', policyYaml('soak', 'guard', spec));
    return holds('denied');
  }),
  churn('guarded is allowed', ({ mesh }) => {
    mesh.remove('guard.yaml');
    return holds('allowed');
  }),
  churn('all weight to v1', ({ mesh }) => weigh(mesh, 100, 0, ['v1'])),
  churn('all weight to v2', ({ mesh }) => weigh(mesh, 0, 100, ['v2'])),
  churn('weight to both', ({ mesh }) => weigh(mesh, 50, 50, ['v1', 'v2'])),
  churn('ca rotate', async ({ mesh }) => {
    await done(ca(mesh, 'rotate'));
    await rotated(mesh, 240_000);
    return undefined;
  }),
  replace('restart ztunnel/n1', ({ mesh }) => done(mesh.tulle('restart', 'ztunnel/n1'))),
  replace('restart both ztunnels', async ({ mesh }) => {
    await Promise.all(['n1', 'n2'].map((node) => done(mesh.tulle('restart', `ztunnel/${node}`))));
  }),
  replace('restart waypoint', ({ mesh }) => done(mesh.tulle('restart', 'waypoint/soak/waypoint'))),
  replace('restart control-plane', ({ mesh }) => done(mesh.tulle('restart', 'control-plane'))),
  kill('node-agent-n1'),
  kill('control-plane'),
  kill('ztunnel-n2'),
  kill('waypoint-soak_waypoint-0'),
];

function churn(name: string, happen: (bed: SoakBed) => Promise<Expected | undefined>): Happening {
  return { name, kind: 'planned', of: 'churn', happen };
}

function replace(name: string, happen: (bed: SoakBed) => Promise<void>): Happening {
  return {
    name,
    kind: 'planned',
    of: 'replace',
    happen: async (bed) => {
      await happen(bed);
      await ready(bed.mesh);
      return undefined;
    },
  };
}

function kill(name: string): Happening {
  return {
    name: `kill -9 ${name}`,
    kind: 'killed',
    of: 'replace',
    happen: async ({ mesh }) => {
      const pids = (await processIds(mesh)).get(name) ?? [];
      if (pids.length === 0) throw new Error(`there is no process ${name}`);
      for (const pid of pids) process.kill(pid, 'SIGKILL');
      await eventually(
        `there is another ${name}`,
        async () => ((await processIds(mesh)).get(name) ?? []).some((pid) => !pids.includes(pid)),
        30_000,
      );
      await ready(mesh);
      return undefined;
    },
  };
}

async function ready(mesh: Mesh): Promise<void> {
  await mesh.until('the mesh is ready', (status) => status.ready, 60_000);
}

async function done(command: ReturnType<Mesh['tulle']>): Promise<void> {
  const { code, stderr } = await command;
  if (code !== 0) throw new Error(stderr);
}

async function holds(what: Expected['what']): Promise<Expected> {
  await delay(IN_FORCE_MS);
  const since = Date.now();
  await delay(HOLDS_MS);
  return { since, until: Date.now(), what };
}

function weigh(mesh: Mesh, v1: number, v2: number, answeredBy: readonly string[]): Promise<Expected> {
  mesh.write('route.yaml', routeYaml(v1, v2));
  return holds({ answeredBy });
}

let comings = 0;

/** On the node with packet rules and on another in turn. Its caller fails if a single call of it does. */
async function comeAndGo({ mesh }: SoakBed): Promise<undefined> {
  comings += 1;
  const node = comings % 2 === 0 ? 'n1' : 'c';
  const name = `guest-${comings}`;
  const options = { namespace: 'soak', name, serviceAccount: 'guest', node };
  const guest = await mesh.run({ ...options, command: trafficServerCommand(name) }, true);
  const at = { namespace: 'soak', name: `caller-${comings}`, serviceAccount: 'guest', node: 'n2' };
  const target = `${guest.addresses[0]}`;
  const traffic = await startTraffic(mesh, at, [
    { name: 'new', kind: 'new', target: `${target}:8080`, pauseMs: 10 },
    { name: 'tcp', kind: 'tcp', target: `${target}:9000`, pauseMs: 10 },
  ]);
  await delay(1000);
  await traffic.end();
  const [bad] = traffic.read().filter(({ what }) => what === 'failed' || what === 'cut');
  await endProcess(guest.child);
  await mesh.until('they are gone', ({ workloads }) =>
    workloads.every((workload) => workload.name !== name && workload.name !== at.name),
  );
  if (bad !== undefined) throw new Error(`a call of a guest failed: ${JSON.stringify(bad)}`);
}
