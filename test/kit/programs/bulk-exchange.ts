/**
 * Many bytes through one connection, both ways at once. The caller says how many, and how many a second (0: as fast as it goes), each as 8
 * bytes (big endian); then either end sends that many, and their SHA-256. Every MiB begins with its number, so that a piece that is lost, twice or out of turn changes the sum.
 *
 *   caller -> [ 8: n ][ 8: rate ][ n bytes ][ 32: SHA-256 ] FIN
 *   server ->                    [ n bytes ][ 32: SHA-256 ] FIN
 */
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** Progress is told so often. */
export const PROGRESS_BYTES: number = 1024 * 1024;
const PIECE = PROGRESS_BYTES;
const HEADER = 16;
const NUMBER = 8;
const SUM = 32;

/** What a bulk exchange found at the caller's end. */
export interface BulkResult {
  readonly sent: number;
  readonly received: number;
  /** What came is what the server said that it had sent, and the server said the same of what we sent. */
  readonly isSame: boolean;
}

export interface BulkOptions {
  readonly bytes: number;
  /** As fast as it goes where undefined. */
  readonly bytesPerSecond?: number | undefined;
  /** Told for every MiB that was received. */
  readonly onProgress?: () => void;
}

/** The caller's end, on a connection that is open. It is destroyed at the end. */
export async function exchangeBulk(socket: Socket, options: BulkOptions): Promise<BulkResult> {
  const header = Buffer.alloc(HEADER);
  header.writeBigUInt64BE(BigInt(options.bytes));
  header.writeBigUInt64BE(BigInt(options.bytesPerSecond ?? 0), NUMBER);
  socket.on('error', () => undefined);
  socket.write(header);
  const [, received] = await Promise.all([
    send(socket, options.bytes, options.bytesPerSecond ?? 0),
    receive(socket, options.bytes, options.onProgress),
  ]);
  socket.destroy();
  return { sent: options.bytes, ...received };
}

/** The server's end. */
export async function answerBulk(socket: Socket): Promise<void> {
  const failed = once(socket, 'error').then(([error]) => Promise.reject(error as Error));
  failed.catch(() => undefined);
  socket.on('error', () => undefined);
  const header = await Promise.race([readExactly(socket, HEADER), failed]);
  const bytes = Number(header.readBigUInt64BE());
  const rate = Number(header.readBigUInt64BE(NUMBER));
  let sum: (isSame: boolean) => void = () => undefined;
  const verdict = new Promise<boolean>((resolve) => {
    sum = resolve;
  });
  const sending = send(socket, bytes, rate, verdict);
  sending.catch(() => undefined);
  const { isSame } = await Promise.race([receive(socket, bytes), failed]);
  sum(isSame);
  await Promise.race([sending, failed]);
}

/** Sends the bytes and their sum; with a verdict, the sum is spoilt where that is false, so that the other end knows. */
async function send(
  socket: Socket,
  bytes: number,
  bytesPerSecond: number,
  verdict?: Promise<boolean>,
): Promise<void> {
  const hash = createHash('sha256');
  const noise = randomBytes(PIECE);
  const start = performance.now();
  for (let sent = 0; sent < bytes; ) {
    const piece = Buffer.from(noise.subarray(0, Math.min(PIECE, bytes - sent)));
    if (piece.length >= NUMBER) piece.writeBigUInt64BE(BigInt(sent));
    hash.update(piece);
    sent += piece.length;
    if (!socket.write(piece)) await drained(socket);
    const aheadMs = bytesPerSecond === 0 ? 0 : (sent / bytesPerSecond) * 1000 - (performance.now() - start);
    if (aheadMs > 0) await delay(aheadMs);
  }
  const sum = hash.digest();
  if (verdict !== undefined && !(await verdict)) sum.fill(0);
  socket.end(sum);
}

async function drained(socket: Socket): Promise<void> {
  if (socket.destroyed) throw new Error('the connection was closed');
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      socket.off('drain', settle);
      socket.off('close', settle);
      if (socket.destroyed) reject(new Error('the connection was closed'));
      else resolve();
    };
    socket.on('drain', settle);
    socket.on('close', settle);
  });
}

function receive(
  socket: Socket,
  bytes: number,
  onProgress?: () => void,
): Promise<{ readonly received: number; readonly isSame: boolean }> {
  const hash = createHash('sha256');
  const sum: Buffer[] = [];
  let received = 0;
  return new Promise((resolve, reject) => {
    socket.on('data', (chunk: Buffer) => {
      const payload = take(hash, chunk, bytes - received);
      if (Math.floor((received + payload) / PIECE) > Math.floor(received / PIECE)) onProgress?.();
      received += payload;
      if (payload < chunk.length) sum.push(Buffer.from(chunk.subarray(payload)));
    });
    socket.resume();
    socket.once('end', () => {
      const wanted = Buffer.concat(sum);
      if (received < bytes || wanted.length !== SUM)
        reject(new Error(`cut after ${received} of ${bytes} bytes`));
      else resolve({ received, isSame: hash.digest().equals(wanted) });
    });
    socket.once('error', reject);
    socket.once('close', () =>
      reject(new Error(`the connection was closed after ${received} of ${bytes} bytes`)),
    );
  });
}

function take(hash: Hash, chunk: Buffer, wanted: number): number {
  const payload = Math.min(chunk.length, wanted);
  if (payload > 0) hash.update(payload === chunk.length ? chunk : chunk.subarray(0, payload));
  return payload;
}

/** The first bytes of a connection; what comes with them is given back to it. */
async function readExactly(socket: Socket, bytes: number): Promise<Buffer> {
  for (;;) {
    const found = socket.read(bytes) as Buffer | null;
    if (found !== null) return found;
    await once(socket, 'readable');
  }
}
