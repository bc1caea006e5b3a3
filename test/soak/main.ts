/**
 * `npm run soak -- [--minutes 60] [--out FOLDER]`: a mesh of its own under mixed load while pods, policies, routes and certificates change
 * and processes are restarted and killed. Writes samples, plots and a summary to the folder; ends with 1 when something failed that
 * was not to, or something grows. Needs root. `--clean` removes what a soak that was killed has left.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { runCommand } from '#test/kit/command.ts';
import { endOnSignal } from '#test/kit/end-on-signal.ts';
import { TULLE } from '#test/kit/mesh.ts';
import { openSoakBed } from './bed.ts';
import { isPassed, type SoakResult, writeReport } from './report.ts';
import { soak } from './soak.ts';

/** Where the mesh of a soak is, so that the next one removes it if this one is killed. */
const MARKER = join(tmpdir(), 'tulle-soak.json');

interface Marker {
  readonly pid: number;
  readonly state: string;
}

const { values: options } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    out: { type: 'string', default: '' },
    clean: { type: 'boolean', default: false },
  },
});
const minutes = Number(options.minutes);
if (!(minutes > 0)) throw new Error(`--minutes ${options.minutes} is no number of minutes`);

await sweep();
if (!options.clean) await main();

async function main(): Promise<void> {
  const stamp = new Date().toISOString().slice(0, 16).replaceAll(/[:T]/g, '-');
  const folder = options.out === '' ? join(tmpdir(), `tulle-soak-${stamp}`) : resolve(options.out);
  const probes = mkdtempSync(join(tmpdir(), 'tulle-soak-probes-'));
  let result: SoakResult;
  try {
    await using bed = await openSoakBed(probes);
    endOnSignal(bed);
    const marker: Marker = { pid: process.pid, state: bed.mesh.state };
    writeFileSync(MARKER, JSON.stringify(marker));
    console.error(`soaking for ${minutes} minutes; state ${bed.mesh.state}`);
    result = await soak(bed, minutes, (text) => console.error(text));
  } finally {
    rmSync(probes, { recursive: true, force: true });
    rmSync(MARKER, { force: true });
  }
  console.log(writeReport(folder, result));
  console.log(`Written to ${folder}`);
  if (!isPassed(result)) process.exitCode = 1;
}

/** Removes the mesh of a soak that was killed. @throws Error while another one runs */
async function sweep(): Promise<void> {
  const left = readMarker();
  if (left === undefined) return;
  if (isRunning(left.pid)) throw new Error(`a soak runs already: process ${left.pid}`);
  console.error(`removing what process ${left.pid} left: ${left.state}`);
  await runCommand([TULLE, 'down', '--state', left.state], 120_000);
  rmSync(dirname(left.state), { recursive: true, force: true });
  rmSync(MARKER, { force: true });
}

function readMarker(): Marker | undefined {
  try {
    return JSON.parse(readFileSync(MARKER, 'utf8')) as Marker;
  } catch {
    return undefined;
  }
}

function isRunning(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('soak/main.ts');
  } catch {
    return false;
  }
}
