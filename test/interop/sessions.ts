import type { Bed } from './bed.ts';
import { type Case, type Field, get, type Observation } from './case.ts';
import type { Side } from './compare.ts';

/** How a service keeps callers at one host. */
export interface Session {
  readonly name: string;
  readonly to: string;
  readonly path: string;
  /** What the client sends from then on, by what it was answered. */
  readonly remember: (answer: Observation) => Field | undefined;
}

const MANY = 8;

/** Cookie, without its value; it is each proxy's own. */
export function cookieOf(
  { headers }: Observation,
  name: string,
): { readonly value: string; readonly attributes: readonly string[] } | undefined {
  const line = headers.find(([own, value]) => own === 'set-cookie' && value.startsWith(`${name}=`))?.[1];
  if (line === undefined) return undefined;
  const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
  return {
    value: pair.slice(name.length + 1),
    attributes: attributes.map((attribute) => attribute.toLowerCase()).sort(),
  };
}

/** Hosts that answer when the client remembers nothing, and when it remembers its first answer. */
export async function hostsOf(
  bed: Bed,
  side: Side,
  { name, to, path, remember }: Session,
): Promise<{
  readonly first: Observation;
  readonly strangers: ReadonlySet<string>;
  readonly faithful: ReadonlySet<string>;
}> {
  const ask = (fields: readonly Field[]): Promise<Observation> => {
    const one: Case = { name, to, send: get(path, fields), expect: {} };
    return bed.ask(side, one);
  };
  const first = await ask([]);
  const memory = remember(first);
  if (memory === undefined)
    throw new Error(`${side} gave the client nothing to remember: ${JSON.stringify(first.headers)}`);
  const [strangers, faithful] = [new Set<string>(), new Set([hostOf(first)])];
  for (let i = 0; i < MANY; i += 1) {
    strangers.add(hostOf(await ask([])));
    faithful.add(hostOf(await ask([memory])));
  }
  return { first, strangers, faithful };
}

/** Address of who answered. */
export function hostOf({ headers }: Observation): string {
  return headers.find(([name]) => name === 'x-endpoint')?.[1] ?? 'none';
}
