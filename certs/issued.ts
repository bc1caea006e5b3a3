import { chmodSync } from 'node:fs';
import { DatabaseSync, type SQLOutputValue } from 'node:sqlite';

/** A certificate that the authority issued. */
export interface IssuedRecord {
  /** Lower-case hexadecimal. */
  readonly serial: string;
  /** SPIFFE ID. */
  readonly identity: string;
  /** Node that asked for it. */
  readonly node: string;
  /** Milliseconds since the epoch. */
  readonly issuedMs: number;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** What the authority issued, on disk; the opener closes it. */
export interface IssuedLog {
  record(issued: IssuedRecord): void;
  /** The newest certificate of each identity on each node, ordered by identity and node. */
  latest(): readonly IssuedRecord[];
  /** The certificate with that serial number, unless it is forgotten. */
  find(serial: string): IssuedRecord | undefined;
  /** When the last of all ends; 0 before the first. Milliseconds since the epoch. */
  lastEndMs(): number;
  close(): void;
}

/** Thrown for a database that cannot be used; the message names the file and what to do. */
export class IssuedLogError extends Error {
  override readonly name = 'IssuedLogError';
  readonly code = 'ISSUED_LOG_UNUSABLE';
}

const RETAINED_AFTER_EXPIRY_MS = 30 * 24 * 3_600_000;
const RECORDS_BETWEEN_CLEANINGS = 1000;

/**
 * Opens the SQLite database of issued certificates, made on first use. Certificates are forgotten 30 days after they
 * expired.
 * @throws IssuedLogError when the file is not such a database or cannot be written.
 */
export function openIssuedLog(path: string, now: () => number = Date.now): IssuedLog {
  const database = openDatabase(path);
  const insert = database.prepare(
    'INSERT INTO issued (serial, identity, node, issuedMs, notBeforeMs, notAfterMs) VALUES (?, ?, ?, ?, ?, ?)',
  );
  const newest = database.prepare(
    'SELECT * FROM issued WHERE id IN (SELECT max(id) FROM issued GROUP BY identity, node) ORDER BY identity, node',
  );
  const lastEnd = database.prepare('SELECT max(notAfterMs) AS endMs FROM issued');
  const bySerial = database.prepare('SELECT * FROM issued WHERE serial = ?');
  const clean = database.prepare('DELETE FROM issued WHERE notAfterMs < ?');
  const removeExpired = (): void => {
    clean.run(now() - RETAINED_AFTER_EXPIRY_MS);
  };
  removeExpired();
  let recorded = 0;
  return {
    record({ serial, identity, node, issuedMs, notBeforeMs, notAfterMs }) {
      insert.run(serial, identity, node, issuedMs, notBeforeMs, notAfterMs);
      recorded += 1;
      if (recorded % RECORDS_BETWEEN_CLEANINGS === 0) removeExpired();
    },
    latest: () => newest.all().map(toRecord),
    find: (serial) => bySerial.all(serial).map(toRecord)[0],
    lastEndMs: () => Number(lastEnd.get()?.['endMs'] ?? 0),
    close: () => database.close(),
  };
}

function openDatabase(path: string): DatabaseSync {
  try {
    const database = new DatabaseSync(path);
    chmodSync(path, 0o600);
    // Written ahead and not forced to disk each time: a power cut may lose the last entries, never the file.
    database.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = NORMAL;
      CREATE TABLE IF NOT EXISTS issued (
        id INTEGER PRIMARY KEY,
        serial TEXT NOT NULL,
        identity TEXT NOT NULL,
        node TEXT NOT NULL,
        issuedMs INTEGER NOT NULL,
        notBeforeMs INTEGER NOT NULL,
        notAfterMs INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX IF NOT EXISTS issued_by_holder ON issued (identity, node, id);
      CREATE INDEX IF NOT EXISTS issued_by_serial ON issued (serial);
      CREATE INDEX IF NOT EXISTS issued_by_end ON issued (notAfterMs);
    `);
    return database;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `${path} cannot be used (${reason}); move it away, and a new one is made`;
    throw new IssuedLogError(message, { cause });
  }
}

function toRecord(row: Record<string, SQLOutputValue>): IssuedRecord {
  return {
    serial: String(row['serial']),
    identity: String(row['identity']),
    node: String(row['node']),
    issuedMs: Number(row['issuedMs']),
    notBeforeMs: Number(row['notBeforeMs']),
    notAfterMs: Number(row['notAfterMs']),
  };
}
