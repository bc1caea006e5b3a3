import { z } from 'zod';
import { CliError } from '../cli-error.ts';
import { type EnrolmentState, enrolmentState, readNodeEnrolment } from './enrolment.ts';
import { POD_FIELDS } from './inventory.ts';
import type { Route } from './json-server.ts';
import { formatWorkloadRef, type WorkloadRef } from './names.ts';
import { whyUnseen } from './outages.ts';
import type { PodDescription, PodRequest, Pods } from './pods.ts';
import { findProcess, type ProcessId } from './process-id.ts';
import type { StateFolder } from './state-folder.ts';
import type { SupervisedProcess } from './supervised-process.ts';
import type { Replica, Waypoints } from './waypoints.ts';

/** What the supervisor's socket gives access to. */
export interface SupervisorParts {
  readonly state: StateFolder;
  readonly pods: Pods;
  /** All but those of waypoints. */
  readonly processes: readonly SupervisedProcess[];
  readonly waypoints: Pick<Waypoints, 'replicas' | 'change'>;
  readonly status: () => Promise<unknown>;
}

const POD_REQUEST: z.ZodType<Omit<PodRequest, 'runner'> & { readonly runner: number }> = POD_FIELDS.and(
  z.object({ node: z.string().optional(), runner: z.number() }),
).transform((request) => ({ ...request, node: request.node }));

const VERB = z.enum(['stop', 'start', 'restart']);
const STARTED = z.object({ init: z.number(), command: z.number() });

const POD_PATH = '/pods/(?<namespace>[^/]+)/(?<name>[^/]+)';
const START_TIMEOUT_MS = 30_000;

/**
 * What `tulle` asks of a running mesh over run/tulle.sock: workloads come and go (POST and DELETE /pods…), processes are
 * stopped, started and restarted (POST /processes/NAME/VERB), and all of it is shown (GET /status).
 */
export function supervisorRoutes(parts: SupervisorParts): readonly Route[] {
  const { pods } = parts;
  return [
    { method: 'GET', path: /^\/status$/, handle: () => parts.status() },
    { method: 'POST', path: /^\/pods$/, handle: (_, body) => addPod(pods, body) },
    {
      method: 'GET',
      path: new RegExp(`^${POD_PATH}$`),
      handle: async (groups) => describePod(pods, groups),
    },
    {
      method: 'DELETE',
      path: new RegExp(`^${POD_PATH}$`),
      handle: (groups) => pods.remove(refOf(groups)),
    },
    {
      method: 'GET',
      path: new RegExp(`^${POD_PATH}/enrolment$`),
      handle: (groups) => enrolmentOf(parts, describePod(pods, groups)),
    },
    {
      method: 'POST',
      path: new RegExp(`^${POD_PATH}/started$`),
      handle: async (groups, body) => {
        const { init, command } = STARTED.parse(body);
        pods.started(refOf(groups), processOf(init), processOf(command));
      },
    },
    {
      method: 'POST',
      path: /^\/processes\/(?<name>.+)\/(?<verb>stop|start|restart)$/,
      handle: (groups) => changeProcess(parts, groups['name'] ?? '', VERB.parse(groups['verb'])),
    },
  ];
}

async function addPod(pods: Pods, body: unknown): Promise<PodDescription> {
  const request = POD_REQUEST.parse(body);
  return pods.describe(await pods.add({ ...request, runner: processOf(request.runner) }));
}

function describePod(pods: Pods, groups: Readonly<Record<string, string>>): PodDescription {
  const record = pods.find(refOf(groups));
  if (record !== undefined) return pods.describe(record);
  const all = pods.list().map(formatWorkloadRef).sort().join(', ') || 'none';
  throw new CliError(`there is no workload ${formatWorkloadRef(refOf(groups))}; there are: ${all}`);
}

/** Asked again and again while a workload waits, so the control plane is only looked at where it is that which is waited for. */
async function enrolmentOf(
  { state, processes }: SupervisorParts,
  { record }: PodDescription,
): Promise<EnrolmentState> {
  const found = enrolmentState(record.uid, readNodeEnrolment(state, record.node));
  if (found.kind !== 'unknown') return found;
  const controlPlane = processes.find(({ spec }) => spec.name === 'control-plane');
  const report = controlPlane && {
    state: controlPlane.state,
    downSince: controlPlane.downSince,
    ready: await controlPlane.isReady(),
  };
  return { ...found, reason: whyUnseen(report) };
}

async function changeProcess(
  { processes, waypoints }: SupervisorParts,
  name: string,
  verb: 'stop' | 'start' | 'restart',
): Promise<void> {
  const { replicas } = waypoints;
  const chosen = replicasNamed(replicas, name);
  if (chosen.length > 0) return waypoints.change(verb, chosen);
  const changeable = processes.filter(({ spec }) => !spec.name.startsWith('node-agent/'));
  const process = changeable.find(({ spec }) => spec.name === name);
  if (process === undefined) {
    const all = [...changeable, ...replicas.map((replica) => replica.process)];
    throw new CliError(
      `there is no process ${name}; there are: ${all.map(({ spec }) => spec.name).join(', ')}`,
    );
  }
  if (verb === 'stop') return process.stop();
  // Two control planes would contend for one state; its clients go on with what they have and come back.
  if (verb === 'restart' && name !== 'control-plane') return process.replace();
  if (verb === 'restart') await process.stop();
  process.start();
  await process.waitUntilReady(START_TIMEOUT_MS);
}

/** `waypoint/NS/NAME` means all replicas, `waypoint/NS/NAME/I` the one of that number. */
function replicasNamed(replicas: readonly Replica[], name: string): readonly Replica[] {
  return replicas.filter(({ ref: { namespace, name: waypoint, index } }) => {
    const whole = `waypoint/${namespace}/${waypoint}`;
    return name === whole || name === `${whole}/${index}`;
  });
}

function refOf(groups: Readonly<Record<string, string>>): WorkloadRef {
  return { namespace: groups['namespace'] ?? '', name: groups['name'] ?? '' };
}

function processOf(pid: number): ProcessId {
  const found = findProcess(pid);
  if (found === undefined) throw new CliError(`process ${pid} is gone`);
  return found;
}
