import { pino } from 'pino';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { CaptureError, type CaptureScope, type PodCapture } from '#ztunnel/capture/capture.ts';
import type { Order } from './decide.ts';
import { PodController } from './pod-controller.ts';
import type { Redirection } from './reports.ts';

const POD = { uid: 'u-a', name: 'a', namespace: 'default', serviceAccount: 'a' };
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

interface World {
  /** What asking for the rules in place answers. */
  scope: CaptureScope | undefined | CaptureError;
  file: Redirection | undefined;
  asked: number;
  /** What was done, in order. */
  readonly events: string[];
}

/** A controller of a pod on a node without a ztunnel. */
function control(world: World, wanted: Order['wanted'] = 'in'): PodController {
  const did = async (what: string): Promise<void> => void world.events.push(what);
  const capture: PodCapture = {
    methodOf: () => ({ method: 'nftables', reason: 'no bpffs' }),
    scopeOf: async () => {
      world.asked++;
      if (world.scope instanceof CaptureError) throw world.scope;
      return world.scope;
    },
    apply: (_, scope) => did(`apply ${scope}`),
    remove: () => did('remove'),
    countCaptured: async () => 0,
    counters: async () => new Map(),
  };
  const order: Order = { wanted, udp: 'allow', mode: 'permissive' };
  const target = {
    pod: POD,
    netnsPath: '/run/netns/a',
    fileName: 'default_a',
    hasStarted: true,
    addresses: [],
    probePorts: [],
    order,
  };
  return new PodController(target, {
    capture,
    zds: { add: () => did('add'), del: () => did('del'), connected: () => 0 },
    told: () => undefined,
    movingMs: () => 0,
    plaintext: () => 'allow',
    probesOf: async () => [],
    redirection: {
      read: () => world.file,
      write: (_, redirection) => {
        world.file = redirection;
        world.events.push(`file ${redirection}`);
      },
    },
    onChange: () => undefined,
    logger: pino({ level: 'silent' }),
  });
}

async function start(controller: PodController): Promise<void> {
  await controller.adopt();
  const done = controller.run();
  closers.push(async () => {
    controller.stop();
    await done;
  });
}

const cannotTell = (): CaptureError => new CaptureError('nft: Resource temporarily unavailable');

test('a pod whose rules cannot be read stays announced and served until they can, and is taken over then', async () => {
  const world: World = { scope: cannotTell(), file: 'enabled', asked: 0, events: [] };
  const controller = control(world);
  await start(controller);
  await eventually('asked again', () => world.asked >= 2);
  expect(world.events).toEqual([]);
  expect(controller.served()?.pod).toBe(POD);
  expect(controller.report()).toMatchObject({
    state: 'pending',
    error: expect.stringContaining('unavailable'),
  });

  world.scope = 'both';
  controller.look();
  await eventually('taken over', () => controller.report().error === undefined);
  expect(controller.report()).toEqual({
    state: 'enrolled',
    capture: 'nftables',
    captureReason: 'no bpffs',
  });
  expect(controller.served()?.pod).toBe(POD);
  await eventually('captured anew', () => world.events.includes('apply both'));
  expect(new Set(world.events)).toEqual(new Set(['file enabled', 'apply both']));
});

test('a pod whose rules cannot be read and that is not announced is left alone', async () => {
  const world: World = { scope: cannotTell(), file: undefined, asked: 0, events: [] };
  const controller = control(world, 'out');
  await start(controller);
  await eventually('asked again', () => world.asked >= 2);
  expect(controller.served()).toBeUndefined();
  expect(controller.report().error).toContain('unavailable');
  expect(world.events).toEqual([]);
});

test('a pod that a ztunnel refused meanwhile is not taken for served', async () => {
  const world: World = { scope: cannotTell(), file: 'enabled', asked: 0, events: [] };
  const controller = control(world);
  await start(controller);
  controller.refused('port 15008 is in use');
  await eventually('asked again', () => world.asked >= 2);
  world.scope = 'both';
  controller.look();
  await eventually('taken over', () => world.file === 'enabled' && world.events.length > 0);
  expect(controller.served()).toBeUndefined();
});

test('stopping ends the attempts, and leaves the redirection as it is', async () => {
  const world: World = { scope: cannotTell(), file: 'enabled', asked: 0, events: [] };
  const controller = control(world);
  await controller.adopt();
  const done = controller.run();
  controller.stop();
  await done;
  expect(world).toMatchObject({ file: 'enabled', asked: 1, events: [] });
});
