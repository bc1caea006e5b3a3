import { once } from 'node:events';
import { type SampleMesh, start } from './sample-mesh.ts';

/** One promise of the mesh, and what went against it; undefined: it held. */
export interface ProbeResult {
  readonly promise: string;
  readonly failure: string | undefined;
}

/** How a call from inside a workload ended. */
export interface Call {
  /** curl's: 22 for an answer of 400 or more. */
  readonly code: number;
  readonly output: string;
}

const CALL_SECONDS = 8;

/** Runs a check; what it throws went against the promise, too. */
export async function probe(promise: string, check: () => Promise<string | undefined>): Promise<ProbeResult> {
  try {
    return { promise, failure: await check() };
  } catch (error) {
    return { promise, failure: error instanceof Error ? error.message : String(error) };
  }
}

/** Calls from inside a workload. `[1-50]` in the URL makes fifty calls. */
export async function call(
  mesh: SampleMesh,
  from: string,
  url: string,
  ...flags: readonly string[]
): Promise<Call> {
  const curl = ['curl', '-sS', '--fail-with-body', '-m', `${CALL_SECONDS}`, ...flags, url];
  const child = start(['exec', '--state', mesh.state, from, '--', ...curl], 'pipe', 'pipe');
  const chunks: Buffer[] = [];
  child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => chunks.push(chunk));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code: code ?? -1, output: Buffer.concat(chunks).toString().trim() };
}

/** How a call ended, in words. */
export function said(code: number, output: string): string {
  return `curl ended with ${code}: ${output}`;
}
