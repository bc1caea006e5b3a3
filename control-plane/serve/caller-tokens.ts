import { createHash, timingSafeEqual } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Metadata } from '@grpc/grpc-js';

/** Who a caller is. A waypoint is a Gateway; all of its replicas are one caller. */
export type Caller =
  | { readonly kind: 'node'; readonly node: string }
  | { readonly kind: 'waypoint'; readonly namespace: string; readonly name: string };

/** Who a caller is, or why that is not known; the reason holds no secret. */
export type Authentication = Caller | { readonly kind: 'refused'; readonly reason: string };

/** The credentials of nodes and waypoints, as they are in the folder at the moment of asking. */
export interface CallerTokens {
  readonly authenticate: (metadata: Pick<Metadata, 'get'>) => Authentication;
  /** All that have a token: nodes, then waypoints, each sorted. */
  readonly callers: () => readonly Caller[];
}

/** A token file with less is not a credential: an empty one must not let an empty token in. */
const SHORTEST_TOKEN = 32;
const LONGEST_TOKEN = 4096;

/** Names of nodes, and so of token files; a file that is being written has another name. */
const NODE_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

/** `NAMESPACE_NAME`: neither holds an underscore. */
const WAYPOINT_NAME = /^([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)_([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)$/;
const WAYPOINTS = 'waypoints';

interface Token {
  readonly caller: Caller;
  readonly stamp: string;
  readonly digest: Buffer | undefined;
}

/**
 * Reads `DIRECTORY/NODE` and `DIRECTORY/waypoints/NAMESPACE_NAME`, one token a file. A file is read again when it changed,
 * so that a token that was replaced or removed is refused from then on.
 */
export function openCallerTokens(directory: string): CallerTokens {
  const tokens = new Map<string, Token>();
  const refresh = (): void => {
    const files = listFiles(directory);
    for (const path of tokens.keys()) if (!files.has(path)) tokens.delete(path);
    for (const [path, caller] of files) refreshToken(tokens, path, caller);
  };
  return {
    authenticate: (metadata) => {
      const presented = bearerToken(metadata);
      if (typeof presented !== 'string') return presented;
      try {
        refresh();
      } catch (cause) {
        return { kind: 'refused', reason: `cannot read the tokens: ${messageOf(cause)}` };
      }
      return ownerOf(tokens, presented);
    },
    callers: () => {
      try {
        refresh();
      } catch {
        return []; // Whoever calls is told why; there is nobody to list.
      }
      return [...tokens.values()].map(({ caller }) => caller);
    },
  };
}

/** `node/NODE` or `waypoint/NAMESPACE/NAME`: no two callers have the same. */
export function formatCaller(caller: Caller): string {
  return caller.kind === 'node' ? `node/${caller.node}` : `waypoint/${caller.namespace}/${caller.name}`;
}

/** Files that may hold tokens, and whose. */
function listFiles(directory: string): ReadonlyMap<string, Caller> {
  const nodes = readdirSync(directory)
    .filter((file) => NODE_NAME.test(file))
    .sort();
  const folder = join(directory, WAYPOINTS);
  const isThere = statSync(folder, { throwIfNoEntry: false })?.isDirectory() ?? false;
  return new Map([
    ...nodes.map((node): [string, Caller] => [join(directory, node), { kind: 'node', node }]),
    ...(isThere ? readdirSync(folder).sort() : []).flatMap((file): [string, Caller][] => {
      const [, namespace, name] = WAYPOINT_NAME.exec(file) ?? [];
      if (namespace === undefined || name === undefined) return [];
      return [[join(folder, file), { kind: 'waypoint', namespace, name }]];
    }),
  ]);
}

function bearerToken(metadata: Pick<Metadata, 'get'>): string | Authentication {
  const values = metadata.get('authorization');
  const [header] = values;
  if (values.length !== 1 || typeof header !== 'string') {
    return { kind: 'refused', reason: 'no authorization header, or several' };
  }
  if (!header.startsWith('Bearer '))
    return { kind: 'refused', reason: 'the authorization is not a bearer token' };
  const token = header.slice('Bearer '.length);
  return token.length > LONGEST_TOKEN ? { kind: 'refused', reason: 'the token is too long' } : token;
}

/** Compares with every token, each in constant time, so that the time says neither how much was right nor whose it is. */
function ownerOf(tokens: ReadonlyMap<string, Token>, presented: string): Authentication {
  const digest = digestOf(presented);
  const owners: Caller[] = [];
  for (const token of tokens.values())
    if (token.digest && timingSafeEqual(token.digest, digest)) owners.push(token.caller);
  const [owner, second] = owners;
  if (owner && !second) return owner;
  const reason = owner
    ? `the token is of several: ${owners.map(formatCaller).join(', ')}; each has to have its own`
    : 'the token is of no node and no waypoint; `tulle token --node NODE` prints that of a node';
  return { kind: 'refused', reason };
}

function refreshToken(tokens: Map<string, Token>, path: string, caller: Caller): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat?.isFile()) {
    tokens.delete(path);
    return;
  }
  const stamp = `${stat.ino} ${stat.size} ${stat.mtimeMs} ${stat.ctimeMs}`;
  if (tokens.get(path)?.stamp === stamp) return;
  const text = readFileSync(path, 'utf8').trim();
  tokens.set(path, { caller, stamp, digest: text.length < SHORTEST_TOKEN ? undefined : digestOf(text) });
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
