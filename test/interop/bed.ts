import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { envoyBinary } from '#test/kit/envoy.ts';
import { eventually } from '#test/kit/eventually.ts';
import { TULLE } from '#test/kit/mesh.ts';
import { createNetns, type Netns } from '#test/kit/netns.ts';
import type { Case, Observation } from './case.ts';
import type { Side } from './compare.ts';
import { callerCredentials } from './credentials.ts';
import { envoyBootstrap } from './envoy-config.ts';
import { type Frontend, type InteropObjects, OBJECTS, readObjects } from './objects.ts';
import { openStage, type Stage } from './stage-client.ts';

/** Everything that the cases need, in a network namespace of its own. */
export interface Bed extends AsyncDisposable {
  /** Sends the case's request to one side. */
  readonly ask: (side: Side, wanted: Case) => Promise<Observation>;
  /** How many mirrored requests of that path came from one side so far. */
  readonly mirrored: (side: Side, path: string) => Promise<number>;
}

const CONTROL_PLANE = { ip: '10.77.0.2', port: 15012 } as const;
const ENVOY = { ip: '10.77.0.3', adminPort: 9901, firstPort: 20_000 } as const;
const WAYPOINT_IP = '10.77.0.4';
/** Namespaces that call. */
const CALLERS = ['elsewhere', 'shop'] as const;
const TOKEN_NAME = 'interop_waypoint';

const PREFIX = 'tulle-interop-';
const FOLDER = new RegExp(`^${PREFIX}(\\d+)-`);

interface Parts {
  readonly directory: string;
  readonly state: string;
  /** What the control plane reads. */
  readonly folder: string;
  readonly netns: Netns;
  readonly objects: InteropObjects;
}

/**
 * Starts applications, control plane, Envoy and waypoint; resolves when both proxies have what they need.
 * @param folder what the control plane reads
 */
export async function openBed(folder: string = OBJECTS): Promise<Bed> {
  await using opened = new AsyncDisposableStack();
  sweep();
  const directory = opened.adopt(mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`)), (path) =>
    rmSync(path, { recursive: true, force: true }),
  );
  const objects = readObjects(folder);
  const netns = opened.use(await createNetns('interop'));
  await layNetwork(netns, objects);
  const parts = { directory, state: join(directory, 'state'), folder, netns, objects };
  await startControlPlane(parts);
  const stage = opened.use(await startStage(parts));
  try {
    await Promise.all([startEnvoy(parts), startWaypoint(parts)]);
  } catch (cause) {
    throw new Error(
      `the control plane says:\n${readFileSync(join(directory, 'control-plane.log'), 'utf8').slice(-4000)}`,
      { cause },
    );
  }
  const stack = opened.move();
  return {
    ask: (side, wanted) => ask(stage, objects, side, wanted),
    mirrored: (side, path) => stage.mirrored(`${side}-`, path),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Removes folders of runs that have died; createNetns does so with namespaces. */
function sweep(): void {
  for (const name of readdirSync(tmpdir())) {
    const [, pid] = FOLDER.exec(name) ?? [];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(tmpdir(), name), { recursive: true });
  }
}

/** Every address of 10.77/16 is the namespace's own; what goes to a hole is lost. */
async function layNetwork(netns: Netns, { holes }: InteropObjects): Promise<void> {
  await netns.exec('ip', ['address', 'add', '10.77.0.1/16', 'dev', 'lo']);
  const rules = holes.map((ip) => `ip daddr ${ip} drop\n`).join('');
  await netns.exec(
    'nft',
    ['-f', '-'],
    `table ip interop {\nchain out {\ntype filter hook output priority 0\n${rules}}\n}\n`,
  );
}

async function startControlPlane({ directory, state, folder, netns }: Parts): Promise<void> {
  mkdirSync(join(state, 'tokens', 'waypoints'), { recursive: true, mode: 0o700 });
  for (const folder of ['ca', 'config', 'run']) mkdirSync(join(state, folder), { mode: 0o700 });
  writeFileSync(tokenFile(state), randomBytes(32).toString('base64url'), { mode: 0o600 });
  const listen = `${CONTROL_PLANE.ip}:${CONTROL_PLANE.port}`;
  const flags = ['control-plane', '--state', state, '-f', folder, '--listen', listen];
  const child = start({ directory, netns }, 'control-plane', [TULLE, ...flags]);
  await ready('control plane', child, join(directory, 'control-plane.log'), (log) =>
    log.includes('control plane ready'),
  );
}

function tokenFile(state: string): string {
  return join(state, 'tokens', 'waypoints', TOKEN_NAME);
}

async function startStage({ state, directory, netns, objects }: Parts): Promise<Stage> {
  const credentials = await callerCredentials(join(state, 'ca'), CALLERS);
  return await openStage(netns, join(directory, 'stage.log'), {
    applications: objects.applications,
    credentials,
  });
}

async function startEnvoy({ directory, state, netns, objects }: Parts): Promise<void> {
  const bootstrap = envoyBootstrap({
    ip: ENVOY.ip,
    adminPort: ENVOY.adminPort,
    controlPlane: CONTROL_PLANE,
    token: readFileSync(tokenFile(state), 'utf8'),
    rootsFile: join(state, 'ca', 'bundle.pem'),
    accessLog: join(directory, 'envoy-access.log'),
    frontends: objects.frontends.map(({ route }, index) => ({ route, port: ENVOY.firstPort + index })),
  });
  const file = join(directory, 'envoy.json');
  writeFileSync(file, JSON.stringify(bootstrap));
  const flags = [
    '-c',
    file,
    '--disable-hot-restart',
    '--concurrency',
    '1',
    '-l',
    'warn',
    '--drain-time-s',
    '1',
  ];
  const child = start({ directory, netns }, 'envoy', [await envoyBinary(), ...flags]);
  const admin = `http://${ENVOY.ip}:${ENVOY.adminPort}`;
  await ready('Envoy', child, join(directory, 'envoy.log'), async () =>
    (await netns.exec('curl', ['-sf', '-m', '2', `${admin}/ready`])).includes('LIVE'),
  );
}

async function startWaypoint({ directory, state, netns }: Parts): Promise<void> {
  const flags = [
    ...['--control-plane', `https://${CONTROL_PLANE.ip}:${CONTROL_PLANE.port}`],
    ...['--token-file', tokenFile(state), '--roots-file', join(state, 'ca', 'bundle.pem')],
    ...['--namespace', 'interop', '--name', 'waypoint', '--listen', `${WAYPOINT_IP}:15008`],
    ...['--access-log', join(directory, 'waypoint-access.jsonl')],
  ];
  const child = start({ directory, netns }, 'waypoint', [TULLE, 'waypoint', ...flags]);
  await ready('waypoint', child, join(directory, 'waypoint.log'), async () =>
    netns.exec('curl', ['-sf', '-m', '2', `http://${WAYPOINT_IP}:15021/healthz/ready`]).then(() => true),
  );
}

/** Starts a process that ends with this one, however that ends. */
function start(
  { directory, netns }: Pick<Parts, 'directory' | 'netns'>,
  name: string,
  command: readonly string[],
): ChildProcess {
  const log = openSync(join(directory, `${name}.log`), 'a');
  const child = netns.spawn('setpriv', ['--pdeathsig', 'KILL', ...command], { stdio: ['ignore', log, log] });
  closeSync(log);
  return child;
}

async function ready(
  what: string,
  child: ChildProcess,
  logFile: string,
  check: (log: string) => boolean | Promise<boolean>,
): Promise<void> {
  try {
    await eventually(
      `${what} ready`,
      async () => {
        if (child.exitCode !== null) return 'ended';
        return (await check(readFileSync(logFile, 'utf8'))) && 'ready';
      },
      30_000,
    ).then((how) => {
      if (how === 'ended') throw new Error(`${what} ended with ${child.exitCode}`);
    });
  } catch (cause) {
    throw new Error(`${what} did not come up:\n${readFileSync(logFile, 'utf8').slice(-4000)}`, { cause });
  }
}

let asked = 0;

async function ask(
  stage: Stage,
  { frontends }: InteropObjects,
  side: Side,
  { to, from = 'elsewhere', send, script, expect, patienceMs = 5000 }: Case,
): Promise<Observation> {
  const frontend = frontendOf(frontends, to, from);
  const port = ENVOY.firstPort + frontends.indexOf(frontend);
  asked += 1;
  return await stage.ask({
    id: `${side}-${asked}`,
    door:
      side === 'envoy'
        ? { kind: 'plain', ip: ENVOY.ip, port }
        : {
            kind: 'hbone',
            ip: WAYPOINT_IP,
            authority: `${frontend.vip}:${frontend.port}`,
            namespace: from,
          },
    host: frontend.host,
    send,
    ...(script === undefined ? {} : { script }),
    mirrors: expect.mirrors?.length ?? 0,
    patienceMs,
  });
}

/** The one for callers of that namespace, else the one for all. */
function frontendOf(frontends: readonly Frontend[], to: string, from: string): Frontend {
  const [service = '', port = '80'] = to.split(':');
  const fitting = frontends.filter((each) => each.service === service && each.port === Number(port));
  const found =
    fitting.find(({ consumer }) => consumer === from) ??
    fitting.find(({ consumer }) => consumer === undefined);
  if (found === undefined) throw new Error(`no service ${to}`);
  return found;
}
