import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { isAlive } from './process-id.ts';
import { SupervisedProcess } from './supervised-process.ts';

let folder: string;
const running: SupervisedProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-supervise-'));
  // Stands in for a cgroup: a file that takes the id of a process.
  writeFileSync(join(folder, 'cgroup.procs'), '');
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop()));
  rmSync(folder, { recursive: true, force: true });
});

/** A shell script under supervision; it is ready when it has made the file `ready-INSTANCE`. */
function supervise(script: string, graceMs = 2_000): SupervisedProcess {
  const supervised = new SupervisedProcess(
    {
      name: 'part',
      command: (instance) => ['sh', '-c', script, folder, `${instance}`],
      env: process.env,
      logFile: join(folder, 'part.log'),
      cgroup: folder,
      hostNetnsFd: 2,
      graceMs,
      isReady: async (instance) => existsSync(join(folder, `ready-${instance}`)),
    },
    () => undefined,
  );
  running.push(supervised);
  return supervised;
}

const pidOf = ({ state }: SupervisedProcess): number => (state.kind === 'running' ? state.pid : 0);

test('a process that crashes is started again and counted', async () => {
  const part = supervise('[ "$1" -ge 3 ] && exec sleep 60; exit 4');
  part.start();
  await eventually('the third start lives', () => part.restarts === 2 && pidOf(part) > 0);
  expect(part.lastEnd).toBe('ended with exit code 4');
});

test('what crashes again and again before it is ready is said in the same words all the time', async () => {
  const part = supervise('[ -e "$0/there" ] || exec sleep 0.05; touch "$0/ready-$1"; exec sleep 60');
  part.start();
  expect(part.downSince).toBeUndefined();
  await eventually('it has ended', () => part.state.kind === 'crashed');
  const since = part.downSince;
  expect(since).toBeGreaterThan(0);
  const said = new Set<string>();
  await eventually('it was started again twice', async () => {
    await part.isReady();
    const { state, downSince } = part;
    said.add(`${state.kind === 'running' ? state.after : 'how' in state ? state.how : ''} ${downSince}`);
    return part.restarts >= 2 && state.kind === 'running';
  });
  expect([...said]).toEqual([`ended with exit code 0 ${since}`]);
  writeFileSync(join(folder, 'there'), '');
  await eventually('it is ready', () => part.isReady());
  expect([part.downSince, part.state]).toEqual([undefined, { kind: 'running', pid: pidOf(part) }]);
});

test('a process that is stopped stays so, and its output is in the log', async () => {
  const part = supervise('echo hello; exec sleep 60');
  part.start();
  await eventually('it said hello', () => readFileSync(join(folder, 'part.log'), 'utf8') === 'hello\n');
  await part.stop();
  expect(part.state).toEqual({ kind: 'stopped' });
  expect(part.restarts).toBe(0);
});

test('a process that takes no notice of SIGTERM is killed after its grace', async () => {
  const part = supervise('trap \'\' TERM; touch "$0/ready-$1"; while :; do sleep 1; done', 100);
  part.start();
  await eventually('it runs', () => part.isReady());
  await part.stop();
  expect(part.state).toEqual({ kind: 'stopped' });
});

test('the old one ends only when the new one is ready', async () => {
  const part = supervise(
    'sleep 0.2; touch "$0/ready-$1"; trap "touch $0/ended-$1; exit" TERM; while :; do sleep 0.05; done',
  );
  part.start();
  await eventually('it is ready', () => part.isReady());
  const first = pidOf(part);
  await part.replace();
  expect(existsSync(join(folder, 'ready-2'))).toBe(true);
  expect(existsSync(join(folder, 'ended-1'))).toBe(true);
  expect(pidOf(part)).not.toBe(first);
  expect(part.restarts).toBe(0);
});

test('a new one that does not start leaves the old one alone', async () => {
  const part = supervise('[ "$1" = 1 ] || exit 9; exec sleep 60');
  part.start();
  const first = pidOf(part);
  await expect(part.replace()).rejects.toThrow(/ended with exit code 9; the old one goes on/);
  expect(pidOf(part)).toBe(first);
});

test('a restart of what crashes in a loop waits for it, and fails', async () => {
  const part = supervise('exit 7');
  part.start();
  await eventually('it has crashed', () => part.state.kind === 'crashed');
  await expect(part.replace()).rejects.toThrow(/part ended with exit code 7; it is tried again by itself/);
});

test('what another supervisor left running is taken over, supervised and replaced, as one of its own', async () => {
  const script = 'touch "$0/ready-$1"; exec sleep 60';
  const first = supervise(script);
  first.start();
  await eventually('it is ready', () => first.isReady());
  const recorded = first.recorded;
  const second = supervise(script);
  second.adopt(recorded);
  second.start();
  expect([second.state, second.isOutdated]).toEqual([first.state, false]);
  expect(second.recorded).toEqual(recorded);
  await second.replace();
  expect(second.recorded).toMatchObject([{ instance: 2, serves: true }]);
  await eventually('the old one is gone', () => recorded.every(({ process }) => !isAlive(process)));
});

test('one that was getting ready or draining is ended by whoever takes over, and other settings are seen', async () => {
  const first = supervise('exec sleep 60');
  first.start();
  const draining = first.recorded.map((one) => ({ ...one, serves: false, instance: 4 }));
  const second = supervise('exec sleep 61');
  second.adopt(draining);
  second.start();
  await eventually('it is gone', () => second.recorded.length === 1);
  expect(draining.map(({ process }) => isAlive(process))).toEqual([false]);
  expect(second.recorded).toMatchObject([{ instance: 5, serves: true }]);
  const third = supervise('exec sleep 62');
  third.adopt(second.recorded);
  expect(third.isOutdated).toBe(true);
});

test('what is to be replaced and cannot be is told, and goes on, until it can', async () => {
  const first = supervise('touch "$0/ready-$1"; exec sleep 60');
  first.start();
  await eventually('it is ready', () => first.isReady());
  const second = supervise('[ -e "$0/there" ] || exit 9; touch "$0/ready-$1"; exec sleep 60');
  second.adopt(first.recorded);
  second.start();
  expect(await second.renew()).toBe(false);
  const { notRenewed } = second;
  expect(notRenewed?.why).toMatch(/the new part ended with exit code 9; the old one goes on/);
  expect(pidOf(second)).toBe(pidOf(first));
  expect(await second.renew()).toBe(false);
  expect(second.notRenewed).toEqual(notRenewed);
  writeFileSync(join(folder, 'there'), '');
  expect(await second.renew()).toBe(true);
  expect([second.notRenewed, second.isOutdated]).toEqual([undefined, false]);
  expect(pidOf(second)).not.toBe(pidOf(first));
  expect(await second.renew()).toBe(true);
});

test('one that cannot be started at all is tried again', async () => {
  rmSync(join(folder, 'cgroup.procs'));
  mkdirSync(join(folder, 'part.log'));
  const part = supervise('exec sleep 60');
  part.start();
  await eventually('it was tried again', () => part.restarts > 0);
  expect(part.lastEnd).toMatch(/^did not start: EISDIR/);
  rmSync(join(folder, 'part.log'), { recursive: true });
  writeFileSync(join(folder, 'cgroup.procs'), '');
  await eventually('it runs', () => part.state.kind === 'running' && pidOf(part) > 0);
});
