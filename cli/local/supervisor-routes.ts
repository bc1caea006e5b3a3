import { z } from 'zod';
import { CliError } from '../cli-error.ts';
import { type EnrolmentState, enrolmentState, readNodeEnrolment } from './enrolment.ts';
import type { Route } from './json-server.ts';
import { formatWorkloadRef, type WorkloadRef } from './names.ts';
import type { PodDescription, PodRequest, Pods } from './pods.ts';
import { findProcess, type ProcessId } from './process-id.ts';
import type { StateFolder } from './state-folder.ts';
import type { SupervisedProcess } from './supervised-process.ts';

/** What the supervisor's socket gives access to. */
export interface SupervisorParts {
  readonly state: StateFolder;
  readonly pods: Pods;
  readonly processes: readonly SupervisedProcess[];
  readonly status: () => Promise<unknown>;
}

const POD_REQUEST: z.ZodType<Omit<PodRequest, 'runner'> & { readonly runner: number }> = z
  .object({
    namespace: z.string(),
    name: z.string(),
    serviceAccount: z.string(),
    node: z.string().optional(),
    labels: z.record(z.string(), z.string()),
    ports: z.array(z.object({ name: z.string(), port: z.number() })),
    user: z.object({
      name: z.string(),
      uid: z.number(),
      gid: z.number(),
      home: z.string(),
      shell: z.string(),
    }),
    capabilities: z.array(z.string()),
    runner: z.number(),
  })
  .transform((request) => ({ ...request, node: request.node }));

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
      handle: async (groups) => enrolmentOf(parts, describePod(pods, groups)),
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
      handle: (groups) => changeProcess(parts.processes, groups['name'] ?? '', groups['verb'] ?? ''),
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

function enrolmentOf({ state }: SupervisorParts, { record }: PodDescription): EnrolmentState {
  return enrolmentState(record.uid, readNodeEnrolment(state, record.node));
}

async function changeProcess(
  processes: readonly SupervisedProcess[],
  name: string,
  verb: string,
): Promise<void> {
  const changeable = processes.filter(({ spec }) => !spec.name.startsWith('node-agent/'));
  const process = changeable.find(({ spec }) => spec.name === name);
  if (process === undefined) {
    const names = changeable.map(({ spec }) => spec.name).join(', ');
    throw new CliError(`there is no process ${name}; there are: ${names}`);
  }
  if (verb === 'stop') return process.stop();
  // Two control planes would contend for one state; its clients go on with what they have and come back.
  if (verb === 'restart' && name !== 'control-plane') return process.replace();
  if (verb === 'restart') await process.stop();
  process.start();
  await process.waitUntilReady(START_TIMEOUT_MS);
}

function refOf(groups: Readonly<Record<string, string>>): WorkloadRef {
  return { namespace: groups['namespace'] ?? '', name: groups['name'] ?? '' };
}

function processOf(pid: number): ProcessId {
  const found = findProcess(pid);
  if (found === undefined) throw new CliError(`process ${pid} is gone`);
  return found;
}
