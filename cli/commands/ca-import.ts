import { readFileSync } from 'node:fs';
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
    const message = `--cert ${cert}: ${cause.message}; its password is read from --password-file`;
    throw new CliError(message, { cause });
  }
}

/** A key in the same file as its certificate. */
function keyBeside(text: string): string {
  const [key] = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[^-]+-----END \1-----/.exec(text) ?? [];
  if (key === undefined) throw usageError('--key is missing: without its key an authority signs nothing');
  return `${key}\n`;
}

function readBytes(flag: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new CliError(`${flag} ${path} cannot be read`, { cause });
  }
}
