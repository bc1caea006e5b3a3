/**
 * A foreign HBONE client on node:http2: `node foreign-hbone.ts STATE IP`, with one JSON question a line on standard input
 * and one JSON answer a line on standard output. It makes its own certificates under the mesh's CA, right and wrong.
 */
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import { join } from 'node:path';
import readline from 'node:readline';
import tls from 'node:tls';
import { generateSigningKey, importSigningKey, signCertificate } from '#certs/x509.ts';

/** What to present and to ask. */
export interface Question {
  /** URI names of the client's certificate. */
  readonly uris: readonly string[];
  readonly notAfterMs: number;
  /** Sign with a CA that is not the mesh's. */
  readonly foreignCa?: boolean;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent after a 200. */
  readonly body?: string;
}

/** What came of it. */
export type Answer =
  | {
      readonly kind: 'response';
      readonly status: number;
      readonly headers: Readonly<Record<string, string>>;
      readonly body: string;
      readonly group: string;
    }
  | { readonly kind: 'failed'; readonly error: string };

const [state = '', ip = ''] = process.argv.slice(2);
const ca = (name: string): string => readFileSync(join(state, 'ca', name), 'utf8');

async function credentials(question: Question): Promise<{ key: string; cert: string }> {
  const { keyPem, publicKeySpki } = await generateSigningKey();
  const signingKey =
    question.foreignCa === true ? (await generateSigningKey()).key : importSigningKey(ca('issuing.key'));
  const { pem } = await signCertificate(
    {
      role: 'workload',
      subject: '',
      names: question.uris.map((value) => ({ type: 'uri' as const, value })),
      publicKeySpki,
      notBeforeMs: Math.min(Date.now(), question.notAfterMs) - 120_000,
      notAfterMs: question.notAfterMs,
    },
    { key: signingKey, certificatePem: ca('issuing.pem') },
  );
  return { key: keyPem, cert: pem + ca('issuing.pem') };
}

async function ask(question: Question): Promise<Answer> {
  const { key, cert } = await credentials(question);
  return await new Promise<Answer>((resolve) => {
    const failed = (error: unknown): void => resolve({ kind: 'failed', error: String(error) });
    const socket = tls.connect({
      host: ip,
      port: 15008,
      key,
      cert,
      ca: ca('root.pem'),
      ALPNProtocols: ['h2'],
      checkServerIdentity: () => undefined,
    });
    socket.on('error', failed);
    socket.on('close', () => failed('connection closed'));
    socket.on('secureConnect', () => {
      const group = (socket.getEphemeralKeyInfo() as { name?: string } | null)?.name ?? '';
      const session = http2.connect('https://hbone', { createConnection: () => socket });
      session.on('error', failed);
      session.on('close', () => failed('session closed'));
      const stream = session.request(question.headers, { endStream: false });
      let body = '';
      let headers: Record<string, string> = {};
      stream.on('error', failed);
      stream.on('response', (response) => {
        headers = Object.fromEntries(Object.entries(response).map(([name, value]) => [name, String(value)]));
        if (question.body !== undefined && headers[':status'] === '200') stream.write(question.body);
        stream.end();
      });
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => {
        body += text;
      });
      stream.on('end', () => {
        resolve({ kind: 'response', status: Number(headers[':status']), headers, body, group });
        session.close();
      });
    });
  });
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await ask(JSON.parse(line) as Question))}\n`);
}
process.exit(0);
