import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { netnsPath } from '../local/network-namespace.ts';
import { choosesTls13, readSegments } from './packets.ts';
import { type Call, call, type ProbeResult, probe, said } from './probe.ts';
import type { SampleMesh } from './sample-mesh.ts';
import { probeWaypoint } from './waypoint-probes.ts';

const CATALOG = 'http://catalog.shop:8080/';
const CART = 'http://cart.shop:8080/';
/** Travels in a header and in bodies; must never be seen between the nodes. */
const SECRET_NOTE = 'two-copies-please-7d1c9b';
/** Is in every answer of the catalog. */
const SECRET_BOOK = 'A Wizard of Earthsea';
const PORT_HBONE = 15008;
const PORT_CONTROL_PLANE = 15012;

/** Tries everything that the sample mesh promises, and says of each whether it held. */
export async function* probeSampleMesh(mesh: SampleMesh): AsyncGenerator<ProbeResult> {
  const between = await captureBetweenNodes(mesh);
  try {
    yield* probeCalls(mesh);
  } finally {
    await between.stop();
  }
  yield* between.findings();
  yield* probeWaypoint(mesh);
  yield* probeRefusals(mesh);
}

async function* probeCalls(mesh: SampleMesh): AsyncGenerator<ProbeResult> {
  const web = 'shop/web-1';
  yield probe('web calls cart, and cart calls catalog', async () => {
    const { code, output } = await call(mesh, web, CART, '-H', `x-note: ${SECRET_NOTE}`);
    return code === 0 && output.includes(SECRET_BOOK) && output.includes(SECRET_NOTE)
      ? undefined
      : said(code, output);
  });
  yield probe('calls are spread over the replicas on both nodes', async () => {
    const names = new Set<string>();
    for (let tries = 0; tries < 40 && names.size < 2; tries++) {
      const { output } = await call(mesh, 'shop/cart-1', CATALOG);
      for (const [name] of output.matchAll(/catalog-\d/g)) names.add(name);
    }
    return names.size === 2 ? undefined : `only seen: ${[...names].join(', ') || 'none'}`;
  });
  for (const [index, family] of ['4', '6'].entries()) {
    yield probe(`over IPv${family} a service sees the address of who calls it`, async () => {
      const { workloads } = await mesh.status();
      const address = workloads.find(({ name }) => name === 'web-1')?.addresses[index] ?? 'no address';
      const { code, output } = await call(mesh, web, CART, `-${family}`);
      return output.includes(`"caller":"${address}"`)
        ? undefined
        : `${said(code, output)}, wanted ${address}`;
    });
  }
  for (const name of ['cart', 'cart.shop', 'cart.shop.svc', 'cart.shop.svc.cluster.local']) {
    yield probe(`the name ${name} works`, async () =>
      mustAnswer(await call(mesh, web, `http://${name}:8080/`)),
    );
  }
}

async function* probeRefusals(mesh: SampleMesh): AsyncGenerator<ProbeResult> {
  yield probe('web may not call catalog: the policy names cart only', async () =>
    mustBeRefused(await call(mesh, 'shop/web-1', CATALOG)),
  );
  yield probe('catalog may not call cart: the policy names web only', async () =>
    mustBeRefused(await call(mesh, 'shop/catalog-1', CART)),
  );
  for (const service of ['web', 'cart', 'catalog']) {
    yield probe(`an outsider without mutual TLS may not call ${service}`, async () =>
      mustBeRefused(await call(mesh, 'outside/outsider', `http://${service}.shop:8080/`)),
    );
  }
  yield probe('an outsider may not go round the services to an address either', async () => {
    const { workloads } = await mesh.status();
    const addresses = workloads.find(({ name }) => name === 'catalog-2')?.addresses ?? [];
    for (const address of addresses) {
      const host = address.includes(':') ? `[${address}]` : address;
      const failure = mustBeRefused(await call(mesh, 'outside/outsider', `http://${host}:8080/`));
      if (failure !== undefined) return failure;
    }
    return addresses.length === 2 ? undefined : 'catalog-2 has no two addresses';
  });
  yield probe('what was allowed still works', async () => mustAnswer(await call(mesh, 'shop/web-1', CART)));
}

/** Listens on the link between the first node and the others until it is stopped. */
async function captureBetweenNodes(
  mesh: SampleMesh,
): Promise<{ readonly stop: () => Promise<void>; readonly findings: () => AsyncGenerator<ProbeResult> }> {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-demo-'));
  const file = join(folder, 'between.pcap');
  const netns = (await mesh.status()).nodes[0]?.netns ?? '';
  // -Z root: it keeps its rights, so that it may write into a folder that is nobody else's.
  const flags = ['-i', 'eth0', '-s', '0', '-U', '--immediate-mode', '-Z', 'root', '-w', file];
  const child = spawn('nsenter', [`--net=${netnsPath(netns)}`, 'tcpdump', ...flags], {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  await once(child.stderr, 'data');
  let bytes: Buffer | undefined;
  return {
    stop: async () => {
      const exited = once(child, 'exit');
      child.kill('SIGINT');
      await exited;
      bytes = readFileSync(file);
      rmSync(folder, { recursive: true, force: true });
    },
    findings: () => readFindings(bytes ?? Buffer.alloc(0)),
  };
}

async function* readFindings(capture: Buffer): AsyncGenerator<ProbeResult> {
  const segments = [...readSegments(capture)];
  const tunnel = segments.filter(({ sourcePort, destinationPort }) =>
    [sourcePort, destinationPort].includes(PORT_HBONE),
  );
  yield probe('between the nodes there is TLS 1.3 on port 15008', async () =>
    tunnel.some(choosesTls13)
      ? undefined
      : `${tunnel.length} segments on 15008, no TLS 1.3 handshake among them`,
  );
  yield probe('between the nodes nothing else is said (but to the control plane)', async () => {
    const other = segments.find(
      ({ sourcePort, destinationPort }) =>
        ![PORT_HBONE, PORT_CONTROL_PLANE].some((port) => port === sourcePort || port === destinationPort),
    );
    return other === undefined ? undefined : `from port ${other.sourcePort} to ${other.destinationPort}`;
  });
  for (const secret of [SECRET_NOTE, SECRET_BOOK]) {
    yield probe(`between the nodes "${secret}" is never readable`, async () =>
      capture.includes(secret) ? 'it was found in the capture' : undefined,
    );
  }
}

function mustAnswer({ code, output }: Call): string | undefined {
  return code === 0 && output.includes('"name"') ? undefined : said(code, output);
}

/**
 * Refused is a connection that is closed or reset, or the answer of a waypoint that was not let in for the caller: no time-out,
 * and no name that is not found.
 */
function mustBeRefused({ code, output }: Call): string | undefined {
  return [7, 22, 52, 56].includes(code) && !output.includes('"name"') ? undefined : said(code, output);
}
