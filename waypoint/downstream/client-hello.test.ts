import { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MAX_CLIENT_HELLO, readClientHello } from './client-hello.ts';

/** What node:tls sends first. */
async function clientHello(servername: string | undefined): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const wire = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      resolve(chunk);
      done();
    },
  });
  const socket = connect({ socket: wire, ...(servername !== undefined && { servername }) });
  socket.on('error', () => undefined);
  const hello = await promise;
  socket.destroy();
  return hello;
}

/** The same handshake in records of that many bytes. */
function inRecords(hello: Buffer, size: number): Buffer {
  const body = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < body.length; at += size) {
    const piece = body.subarray(at, at + size);
    records.push(Buffer.from([22, 3, 1, piece.length >> 8, piece.length & 0xff]), piece);
  }
  return Buffer.concat(records);
}

test('the name that a client asks for is read', async () => {
  expect(readClientHello(await clientHello('Ledger.pay.example'))).toEqual({
    kind: 'hello',
    serverName: 'ledger.pay.example',
  });
});

test('a client that asks for none', async () => {
  expect(readClientHello(await clientHello(undefined))).toEqual({ kind: 'hello', serverName: undefined });
});

test('a ClientHello is waited for until its last byte', async () => {
  const hello = await clientHello('ledger.pay');
  for (let length = 0; length < hello.length; length += 1) {
    expect(readClientHello(hello.subarray(0, length))).toEqual({ kind: 'more' });
  }
});

test.each([1, 7, 100])('a ClientHello in records of %i bytes is read', async (size) => {
  const hello = inRecords(await clientHello('ledger.pay'), size);
  expect(readClientHello(hello)).toEqual({ kind: 'hello', serverName: 'ledger.pay' });
});

test.each([
  ['HTTP', Buffer.from('GET / HTTP/1.1\r\n')],
  ['another record', Buffer.from([23, 3, 3, 0, 1, 0])],
  ['SSL 2', Buffer.from([0x80, 0x2e, 1, 3, 1])],
  ['an empty record', Buffer.from([22, 3, 1, 0, 0])],
  ['a record that is too long', Buffer.from([22, 3, 1, 0xff, 0xff])],
  ['a handshake that is no ClientHello', Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0])],
  ['a ClientHello of 16 MB', Buffer.from([22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff])],
  ['a ClientHello of nothing', Buffer.from([22, 3, 1, 0, 4, 1, 0, 0, 0])],
])('%s is not TLS', (_what, bytes) => {
  expect(readClientHello(bytes).kind).toBe('not-tls');
});

test('a ClientHello that never ends is given up', () => {
  const record = Buffer.concat([Buffer.from([22, 3, 1, 0, 1]), Buffer.from([1])]);
  const length = Buffer.concat([Buffer.from([22, 3, 1, 0, 3]), Buffer.from([1, 0, 0])]);
  const endless = Buffer.concat([record, length, ...Array.from({ length: MAX_CLIENT_HELLO }, () => record)]);
  expect(readClientHello(endless).kind).not.toBe('more');
});

test('no bytes are too much for it, and a broken hello never gives a name that was not sent', async () => {
  const hello = await clientHello('ledger.pay');
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(hello.length - 1), fc.nat(255)), { maxLength: 4 }),
      fc.nat(hello.length),
      (changes, length) => {
        const broken = Buffer.from(hello.subarray(0, length));
        for (const [at, byte] of changes) if (at < broken.length) broken[at] = byte;
        const check = readClientHello(broken);
        if (check.kind !== 'hello' || check.serverName === undefined) return;
        expect(check.serverName).toMatch(/^[a-z0-9_][a-z0-9_.-]*$/);
        expect(broken.toString('latin1').toLowerCase()).toContain(check.serverName);
      },
    ),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      expect(['more', 'hello', 'not-tls']).toContain(readClientHello(Buffer.from(bytes)).kind);
    }),
  );
});

test('what comes after the first message is not looked at: it may be early data', async () => {
  const hello = await clientHello('ledger.pay.example');
  const early = Buffer.from('140303000101170303000568656c6c6f', 'hex');
  expect(readClientHello(Buffer.concat([hello, early]))).toMatchObject({ serverName: 'ledger.pay.example' });
});
