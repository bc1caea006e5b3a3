/**
 * A client inside a workload: `node client.ts`, with a JSON list of {@link Call}s as argument. Prints a JSON list of {@link Reply}s,
 * one for each request sent, in the order of the calls; redirects are not followed.
 */
import http from 'node:http';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import type { Call, Reply } from './calls.ts';
import { decodeText, encodeText } from './echo-protocol.ts';

const calls = JSON.parse(process.argv[2] ?? '[]') as readonly Call[];
const agent = new http.Agent({ keepAlive: true });
const replies: Reply[] = [];
for (const call of calls) {
  const channel = call.grpc === undefined ? undefined : new Client(call.url, credentials.createInsecure());
  const { count = 1, atOnce = 1 } = call;
  let next = 0;
  const sendInTurn = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      replies.push(channel === undefined ? await send(call) : await invoke(channel, call));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, sendInTurn));
  channel?.close();
}
agent.destroy();
console.log(JSON.stringify(replies));

function send(call: Call): Promise<Reply> {
  return new Promise((resolve) => {
    const started = performance.now();
    const failed = (error: Error): void => resolve({ status: 0, headers: {}, body: error.message, ms: 0 });
    const request = http.request(
      call.url,
      { agent, method: call.method ?? 'GET', headers: { ...call.headers }, timeout: 10_000 },
      (response) => {
        let body = '';
        response.setEncoding('latin1');
        response.on('data', (chunk: string) => {
          body += chunk;
        });
        response.on('error', failed);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers as Reply['headers'],
            body,
            ms: performance.now() - started,
          }),
        );
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer within 10 s')));
    request.on('error', failed);
    request.end(call.body);
  });
}

function invoke(client: Client, call: Call): Promise<Reply> {
  return new Promise((resolve) => {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(call.headers ?? {})) metadata.add(name, value);
    const started = performance.now();
    const answered = (error: ServiceError | null, text?: string): void =>
      resolve({
        status: error === null ? 200 : 0,
        grpcStatus: error?.code ?? 0,
        headers: {},
        body: text ?? error?.details ?? '',
        ms: performance.now() - started,
      });
    const path = `/${call.grpc ?? ''}`;
    const deadline = Date.now() + 10_000;
    client.makeUnaryRequest(
      path,
      encodeText,
      decodeText,
      call.body ?? 'hello',
      metadata,
      { deadline },
      answered,
    );
  });
}
