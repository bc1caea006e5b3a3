import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import type { HostPort } from '#api/address.ts';
import type { CarrierOrder, CarrierReport } from './programs/carrier.ts';

type Start = Extract<CarrierOrder, { readonly kind: 'start' }>;
type Usage = Extract<CarrierReport, { readonly kind: 'usage' }>;
type Shed = Extract<CarrierReport, { readonly kind: 'shed' }>;

/** A byte worker in a process of its own, serving pods on loopback addresses: to be attacked, starved and measured. */
export interface CarrierProcess extends AsyncDisposable {
  readonly pid: number;
  /** The port on which a mesh port of a pod really is. */
  readonly portOf: (at: HostPort) => number;
  /** @param collect garbage is collected first */
  readonly usage: (collect?: boolean) => Promise<Usage>;
  /** What it refused for want of something, in the order in which it said so. */
  readonly shed: readonly Shed[];
  /** Whether it is still there. */
  readonly isAlive: () => boolean;
}

const PROGRAM = join(import.meta.dirname, 'programs/carrier.ts');

/** Starts one. */
export async function startCarrierProcess(
  options: Omit<Start, 'kind' | 'settings' | 'aims'> & Partial<Pick<Start, 'settings' | 'aims'>>,
): Promise<CarrierProcess> {
  const child: ChildProcess = fork(PROGRAM, [], {
    serialization: 'advanced',
    execArgv: ['--expose-gc'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const waiting: ((report: CarrierReport) => void)[] = [];
  const shed: Shed[] = [];
  const ended = Promise.withResolvers<never>();
  ended.promise.catch(() => undefined);
  child.on('message', (report: CarrierReport) => {
    if (report.kind === 'shed') shed.push(report);
    else waiting.shift()?.(report);
  });
  child.once('exit', (code, signal) => ended.reject(new Error(`the carrier ended with ${code ?? signal}`)));
  const ask = async (order: CarrierOrder): Promise<CarrierReport> => {
    const { promise, resolve } = Promise.withResolvers<CarrierReport>();
    waiting.push(resolve);
    child.send(order);
    return await Promise.race([promise, ended.promise]);
  };
  const started = await ask({ kind: 'start', settings: {}, aims: [], ...options });
  if (started.kind !== 'started') throw new Error(`the carrier said ${started.kind}`);
  const ports = new Map(started.ports.map(({ at: { ip, port }, port: real }) => [`${ip} ${port}`, real]));
  return {
    pid: child.pid ?? 0,
    portOf: ({ ip, port }) => ports.get(`${ip} ${port}`) ?? 1,
    usage: async (collect = false) => (await ask({ kind: 'usage', collect })) as Usage,
    shed,
    isAlive: () => child.exitCode === null && child.signalCode === null,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      child.once('exit', () => resolve());
      child.kill('SIGKILL');
      await promise;
    },
  };
}
