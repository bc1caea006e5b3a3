import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CaptureBed, makeCaptureBed } from '#test/kit/capture-bed.ts';
import { probeTcp } from '#test/kit/netns-probe.ts';

/** What neighbours on the wire, and the application itself, get out of what is there for redirected connections alone. */
let bed: CaptureBed;

beforeAll(async () => {
  bed = await makeCaptureBed('ebpf');
});

afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
});

test.each(['application', 'neighbour'] as const)(
  'a port that redirected connections dial takes none that the hook did not send there: %s',
  async (who) => {
    const { web, catalog } = bed;
    await using relay = await bed.relay(web);
    await using _web = await bed.captured(web, 'both');
    const from = who === 'application' ? web : catalog;
    for (const port of [15064, 15079]) await probeTcp(from, { host: 'fd09:1::2', port });
    await probeTcp(from, { host: '127.64.0.1', port: 15001 });
    expect(relay.connections.filter(({ direction }) => direction === 'outbound')).toEqual([]);
    const isServed = relay.connections.map(({ to }) => to.port);
    expect(isServed).toEqual(who === 'application' ? [] : [15064, 15079]);
  },
);
