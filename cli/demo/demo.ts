import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { CliError } from '../cli-error.ts';
import { stopSignal } from '../local/foreground.ts';
import { formatTable } from '../local/status-text.ts';
import { probeSampleMesh } from './probes.ts';
import { type SampleMesh, startSampleMesh } from './sample-mesh.ts';

/** Runs the sample mesh until Ctrl-C. */
export async function runDemo(state: string): Promise<void> {
  const stop = stopSignal();
  console.log('starting the sample mesh');
  const mesh = await startSampleMesh(state, (line) => console.log(`  ${line}`));
  try {
    console.log(await describeMesh(mesh));
    const over = await Promise.race([aborted(stop.signal), mesh.ended]);
    if (over !== undefined) throw new CliError(over);
  } finally {
    await mesh.stop();
    stop.dispose();
  }
}

/** Brings the sample mesh up beside any other, probes it, prints a line for each promise, stops it. True if all held. */
export async function checkDemo(): Promise<boolean> {
  const stop = stopSignal();
  const folder = mkdtempSync(join(tmpdir(), 'tulle-demo-'));
  console.log('starting the sample mesh');
  let failures = 0;
  let promises = 0;
  try {
    const mesh = await startSampleMesh(join(folder, 'state'), (line) => console.log(`  ${line}`));
    try {
      for await (const { promise, failure } of probeSampleMesh(mesh)) {
        if (stop.signal.aborted) throw new CliError('stopped');
        promises++;
        if (failure !== undefined) failures++;
        console.log(failure === undefined ? `ok      ${promise}` : `FAILED  ${promise}: ${failure}`);
      }
    } finally {
      await mesh.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
    stop.dispose();
  }
  console.log(
    failures === 0 ? `all ${promises} promises held` : `${failures} of ${promises} promises did not hold`,
  );
  return failures === 0;
}

async function describeMesh(mesh: SampleMesh): Promise<string> {
  const { workloads } = await mesh.status();
  const rows = workloads.map(({ namespace, name, node, addresses, enrolled }) => [
    `  ${namespace}/${name}`,
    node,
    addresses.join(' '),
    enrolled ? 'in the mesh' : 'not in the mesh',
  ]);
  const tulle = commandLine(mesh.state);
  return `
The sample mesh runs: web calls cart, cart calls catalog (through a waypoint, which sends a tenth to its new version), all over
mutual TLS; the outsider is not in the mesh.

${formatTable(rows)}

Try, in another terminal:

  ${tulle('exec', 'shop/web-1 -- curl -s http://cart.shop:8080/')}
      web may call cart, and cart calls catalog
  ${tulle('exec', 'shop/web-1 -- curl -s http://catalog.shop:8080/')}
      refused: only cart may call catalog (cli/demo/mesh/policies.yaml)
  ${tulle('exec', "shop/cart-1 -- curl -s 'http://catalog.shop:8080/[1-20]'")}
      two of them from the new version, which a tenth is sent to (cli/demo/mesh/canary.yaml)
  ${tulle('exec', "shop/cart-1 -- curl -si -H 'x-chaos: on' 'http://catalog.shop:8080/[1-4]'")}
      half of them get a fault, and are told so
  ${tulle('exec', 'outside/outsider -- curl -s http://cart.shop:8080/')}
      refused: the shop wants mutual TLS
  ${tulle('explain', '--from shop/web-1 --to catalog.shop:8080 --header x-version=v2')}
      what decides, with the lines of the route and of the policy
  ${tulle('status', '')}
      nodes, workloads, waypoints, splits, policies
  ${tulle('forward', 'shop/web-1 8080:8080')}
      then open http://127.0.0.1:8080/

Ctrl-C stops it and removes everything that it made.
`;
}

/** A command as it is to be typed here. */
function commandLine(state: string): (command: string, rest: string) => string {
  const tulle = relative(process.cwd(), join(import.meta.dirname, '..', 'tulle'));
  const flags = state === '.tulle' ? '' : ` --state ${state}`;
  return (command, rest) => `${tulle} ${command}${flags} ${rest}`.trimEnd();
}

async function aborted(signal: AbortSignal): Promise<undefined> {
  if (!signal.aborted) await once(signal, 'abort');
  return undefined;
}
