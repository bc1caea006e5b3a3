import { createHash, timingSafeEqual } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Metadata } from '@grpc/grpc-js';

/** Who a caller is, or why that is not known; the reason holds no secret. */
export type Authentication =
  | { readonly kind: 'node'; readonly node: string }
  | { readonly kind: 'refused'; readonly reason: string };

/** The credentials of the nodes, as they are in the folder at the moment of asking. */
export interface NodeTokens {
  readonly authenticate: (metadata: Pick<Metadata, 'get'>) => Authentication;
  /** Nodes that have a token, sorted. */
  readonly nodes: () => readonly string[];
}

/** A token file with less is not a credential: an empty one must not let an empty token in. */
const SHORTEST_TOKEN = 32;
const LONGEST_TOKEN = 4096;

/** Names of nodes, and so of token files; a file that is being written has another name. */
const NODE_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

interface Token {
  readonly stamp: string;
  readonly digest: Buffer | undefined;
}

/**
 * Reads `DIRECTORY/NODE`, one token a file. A file is read again when it changed, so that a token that was replaced or
 * removed is refused from then on.
 */
export function openNodeTokens(directory: string): NodeTokens {
  const tokens = new Map<string, Token>();
  const refresh = (): void => {
    const names = readdirSync(directory).filter((name) => NODE_NAME.test(name));
    for (const name of tokens.keys()) if (!names.includes(name)) tokens.delete(name);
    for (const name of names) refreshToken(tokens, directory, name);
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
      const node = ownerOf(tokens, presented);
      return node === undefined
        ? {
            kind: 'refused',
            reason: 'the token is of no node; `tulle token --node NODE` prints the right one',
          }
        : { kind: 'node', node };
    },
    nodes: () => {
      try {
        refresh();
      } catch {
        return []; // Whoever calls is told why; there is nobody to list.
      }
      return [...tokens.keys()].sort();
    },
  };
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
function ownerOf(tokens: ReadonlyMap<string, Token>, presented: string): string | undefined {
  const digest = digestOf(presented);
  let owner: string | undefined;
  for (const [node, token] of tokens) {
    if (token.digest && timingSafeEqual(token.digest, digest)) owner = node;
  }
  return owner;
}

function refreshToken(tokens: Map<string, Token>, directory: string, name: string): void {
  const path = join(directory, name);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat?.isFile()) {
    tokens.delete(name);
    return;
  }
  const stamp = `${stat.ino} ${stat.size} ${stat.mtimeMs} ${stat.ctimeMs}`;
  if (tokens.get(name)?.stamp === stamp) return;
  const text = readFileSync(path, 'utf8').trim();
  tokens.set(name, { stamp, digest: text.length < SHORTEST_TOKEN ? undefined : digestOf(text) });
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
