import { X509Certificate } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { AuthorityError, type AuthorityFiles, NAMES } from './authority-files.ts';
import { splitPem } from './pem.ts';
import type { Rotation, SigningFiles } from './rotation.ts';

/** Beside an authority's files while it is changed for another. */
const ROTATION = 'rotation.json';

/**
 * The rotation that is under way.
 * @throws AuthorityError when the file is not what was written to it.
 */
export function readRotation(directory: string): Rotation {
  const path = join(directory, ROTATION);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return { kind: 'none' };
    throw new AuthorityError(`${path} cannot be read`, { code: 'UNREADABLE', cause });
  }
  const rotation = parseRotation(text);
  if (rotation !== undefined) return rotation;
  throw unreadableRotation(path);
}

/** A rotation as {@link writeRotation} has written it; undefined for anything else. */
export function parseRotation(text: string): Rotation | undefined {
  try {
    return ROTATION_SCHEMA.parse(JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof z.ZodError) return undefined;
    throw error;
  }
}

const files: z.ZodType<SigningFiles> = z.object({
  rootPem: z.string(),
  rootKeyPem: z.string(),
  issuingPem: z.string(),
  issuingKeyPem: z.string(),
});
const ROTATION_SCHEMA: z.ZodType<Rotation> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('none') }),
  z.object({ kind: z.literal('distributing'), startedMs: z.number(), next: files }),
  z.object({
    kind: z.literal('retiring'),
    startedMs: z.number(),
    switchedMs: z.number(),
    untilMs: z.number(),
    signing: files,
    previous: z.object({ rootPem: z.string(), issuingPem: z.string() }),
  }),
]);

/** Keeps it: from then on a restart goes on with it. */
export function writeRotation(directory: string, rotation: Rotation): void {
  replaceDurably(join(directory, ROTATION), `${JSON.stringify(rotation)}\n`, 0o600);
  syncFolder(directory);
}

/** Replaces what has changed of an authority's files, each whole. What belongs together is to be in the rotation before. */
export function updateAuthorityFiles(directory: string, before: AuthorityFiles, after: AuthorityFiles): void {
  for (const [key, name] of Object.entries(NAMES) as [keyof AuthorityFiles, string][]) {
    if (before[key] === after[key]) continue;
    replaceDurably(join(directory, name), after[key], name.endsWith('.key') ? 0o600 : 0o644);
  }
  syncFolder(directory);
}

/** The files as a rotation wants them: one that was cut off half way is carried out to its end. */
export function filesOf(present: AuthorityFiles, rotation: Rotation): AuthorityFiles {
  switch (rotation.kind) {
    case 'none':
      return present;
    case 'distributing':
      return { ...present, bundlePem: withRoot(present.bundlePem, rotation.next.rootPem) };
    case 'retiring': {
      const bundlePem = withRoot(present.bundlePem, rotation.previous.rootPem);
      return { ...rotation.signing, bundlePem: withRoot(bundlePem, rotation.signing.rootPem) };
    }
  }
}

/** A bundle without a root. */
export function withoutRoot(bundlePem: string, rootPem: string): string {
  return splitPem(bundlePem)
    .filter((pem) => !sameCertificate(pem, rootPem))
    .join('');
}

/** Whether two texts are the same certificate. */
export function sameCertificate(a: string, b: string): boolean {
  return new X509Certificate(a).raw.equals(new X509Certificate(b).raw);
}

function withRoot(bundlePem: string, rootPem: string): string {
  if (splitPem(bundlePem).some((pem) => sameCertificate(pem, rootPem))) return bundlePem;
  return `${bundlePem.trimEnd()}\n${splitPem(rootPem).join('')}`;
}

function unreadableRotation(path: string): AuthorityError {
  const message = `${path} is not what was written to it; restore it from a backup. Without it the files beside it hold`;
  return new AuthorityError(message, { code: 'UNREADABLE' });
}

function replaceDurably(path: string, text: string, mode: number): void {
  const next = `${path}.next`;
  const file = openSync(next, 'w', mode);
  try {
    writeFileSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(next, path);
}

function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
