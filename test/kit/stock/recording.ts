import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a stock ztunnel was recorded to say: `test/fixtures/ztunnel/`. */

const FOLDER = join(import.meta.dirname, '../../fixtures/ztunnel');

/** A message of ZDS: `->` from the node agent to the ztunnel, `<-` the other way. */
export interface ZdsMessage {
  readonly direction: '<-' | '->';
  readonly hex: string;
  /** A network namespace travels with it. */
  readonly fd: boolean;
}

/** zds.txt, in order. */
export const ZDS: readonly ZdsMessage[] = readFileSync(join(FOLDER, 'zds.txt'), 'utf8')
  .split('\n')
  .flatMap((line) => {
    const [, direction, hex = '', fd] = /^(<-|->) ([0-9a-f]+)( fd)?/.exec(line) ?? [];
    return direction === '<-' || direction === '->' ? [{ direction, hex, fd: fd !== undefined }] : [];
  });

/** A DeltaDiscoveryRequest as the recording writes it. */
export interface RecordedRequest {
  readonly resourceNamesSubscribe: readonly string[];
  readonly resourceNamesUnsubscribe: readonly string[];
  readonly initialResourceVersions: Readonly<Record<string, string>>;
  readonly node: {
    readonly id: string;
    readonly cluster: string;
    readonly metadata: { readonly fields: Readonly<Record<string, { readonly stringValue: string }>> };
  } | null;
  readonly typeUrl: string;
  readonly responseNonce: string;
  readonly errorDetail: { readonly message: string } | null;
}

interface RecordedEvents {
  readonly stream: { readonly event: 'stream'; readonly metadata: Readonly<Record<string, string>> };
  readonly request: { readonly event: 'request'; readonly r: RecordedRequest };
  readonly csr: {
    readonly event: 'csr';
    readonly metadata: Readonly<Record<string, string>>;
    readonly request: {
      readonly csr: string;
      readonly validityDuration: number;
      readonly metadata: { readonly fields: Readonly<Record<string, { readonly stringValue: string }>> };
    };
  };
}

const events = readLines('ads-and-ca-requests.jsonl') as readonly RecordedEvents[keyof RecordedEvents][];

/** The requests on an ADS stream in order: the first of each type, then an ACK of each. */
export const ADS_REQUESTS: readonly RecordedRequest[] = events.flatMap((event) =>
  event.event === 'request' ? [event.r] : [],
);

/** Metadata of the stream. */
export const ADS_METADATA: Readonly<Record<string, string>> = one('stream').metadata;

/** Metadata and body of the request for a certificate. */
export const CSR: RecordedEvents['csr'] = one('csr');

/** What a foreign HBONE server saw of a stock client; each entry begins with its kind. */
export const FROM_CLIENT: readonly (readonly [string, ...unknown[]])[] = readLines(
  'hbone-from-stock-client.jsonl',
) as readonly [string, ...unknown[]][];

/** What a foreign HBONE client saw of a stock server; each entry begins with its kind, or the name of what was asked. */
export const FROM_SERVER: readonly (readonly [string, ...unknown[]])[] = readLines(
  'hbone-from-stock-server.jsonl',
) as readonly [string, ...unknown[]][];

function one<K extends keyof RecordedEvents>(kind: K): RecordedEvents[K] {
  const found = events.find((event) => event.event === kind);
  if (found === undefined) throw new Error(`no ${kind} was recorded`);
  return found as RecordedEvents[K];
}

function readLines(file: string): readonly unknown[] {
  return readFileSync(join(FOLDER, file), 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);
}
