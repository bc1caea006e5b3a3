import { closeSync, openSync, readSync } from 'node:fs';
import type { ImportedTexts } from '#certs/import-authority.ts';
import { Pkcs12Error, readPkcs12 } from '#certs/pkcs12.ts';
import { CliError, usageError } from '../cli-error.ts';

/** Files of an authority, as `tulle ca import` is told of them. */
export interface ImportFlags {
  readonly cert: string;
  readonly key?: string;
  readonly chain?: string;
  readonly root?: string;
  readonly passwordFile?: string;
}

const PEM = '-----BEGIN ';

/** Larger than any authority with its chain. Sizes of devices and pipes are not known before they are read. */
const MAX_BYTES = 1024 * 1024;

/**
 * Reads them; a PKCS#12 file has the key in it.
 * @throws CliError
 */
export function readImport({ cert, key, chain, root, passwordFile }: ImportFlags): ImportedTexts {
  const others = {
    ...(chain !== undefined && { chainPem: readBytes('--chain', chain).toString() }),
    ...(root !== undefined && { rootPem: readBytes('--root', root).toString() }),
  };
  const bytes = readBytes('--cert', cert);
  if (bytes.includes(PEM)) {
    const keyPem = key === undefined ? keyBeside(bytes.toString()) : readBytes('--key', key).toString();
    return { certificatePem: bytes.toString(), keyPem, ...others };
  }
  if (key !== undefined) throw usageError('--key: a PKCS#12 file brings its key; leave --key out');
  const password = passwordFile === undefined ? '' : readBytes('--password-file', passwordFile).toString();
  try {
    const { certificatesPem, keyPem } = readPkcs12(bytes, password.replace(/\r?\n$/, ''));
    return { certificatePem: certificatesPem, keyPem, ...others };
  } catch (cause) {
    if (!(cause instanceof Pkcs12Error)) throw cause;
    throw new CliError(`--cert ${cert}, with the password of --password-file`, { cause });
  }
}

/** A key in the same file as its certificate. */
function keyBeside(text: string): string {
  const [key] = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[^-]+-----END \1-----/.exec(text) ?? [];
  if (key === undefined) throw usageError('--key is missing: without its key an authority signs nothing');
  return `${key}\n`;
}

function readBytes(flag: string, path: string): Buffer {
  let bytes: Buffer;
  try {
    bytes = readAtMost(path, MAX_BYTES + 1);
  } catch (cause) {
    throw new CliError(`${flag} ${path} cannot be read`, { cause });
  }
  if (bytes.length <= MAX_BYTES) return bytes;
  throw new CliError(`${flag} ${path} has more than 1 MiB: it is neither PEM nor PKCS#12 of an authority`);
}

/** What a file, a pipe or a device gives first, up to `size` bytes. */
function readAtMost(path: string, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  const fd = openSync(path, 'r');
  try {
    let length = 0;
    for (let read = -1; read !== 0 && length < size; length += read) {
      read = readSync(fd, bytes, length, size - length, null);
    }
    return bytes.subarray(0, length);
  } finally {
    closeSync(fd);
  }
}
