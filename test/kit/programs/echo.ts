/**
 * A workload's server that says what reached it: `node echo.ts NAME [HTTP_PORTS] [GRPC_PORT]` (ports by commas).
 * HTTP answers as JSON: its name, method, path, host, headers and body; `/slow/MS` after a while; with header `x-answer-status` that
 * status. `/repeated` answers how many requests it had more than once, by their `x-request-id`. gRPC answers any unary method of `echo.Echo` with its name
 * and the metadata, as JSON in a message of one string field; method `Fail` ends with the status that metadata `x-status` asks for.
 */
import http from 'node:http';
import {
  type Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { decodeText, ECHO_METHODS, encodeText } from './echo-protocol.ts';

const [name = 'echo', httpPorts = '8080', grpcPort = ''] = process.argv.slice(2);

const timesSeen = new Map<string, number>();

for (const port of httpPorts.split(',')) {
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { method, url, headers, rawHeaders, httpVersion } = request;
      if (url === '/repeated') {
        response.end(`${[...timesSeen.values()].filter((times) => times > 1).length}`);
        return;
      }
      const id = String(headers['x-request-id'] ?? '');
      if (id !== '') timesSeen.set(id, (timesSeen.get(id) ?? 0) + 1);
      const body = Buffer.concat(chunks).toString('latin1');
      const seen = {
        name,
        port: Number(port),
        method,
        path: url,
        host: headers.host,
        headers,
        rawHeaders,
        httpVersion,
        body,
      };
      response.setHeader('content-type', 'application/json');
      response.setHeader('x-answered-by', name);
      const status = Number(headers['x-answer-status'] ?? 200);
      response.statusCode = status;
      const [, ms] = /^\/slow\/(\d+)/.exec(url ?? '') ?? [];
      setTimeout(() => response.end(JSON.stringify(seen)), Number(ms ?? 0));
    });
  });
  server.keepAliveTimeout = 600_000;
  server.listen(Number(port), '::');
}

if (grpcPort !== '') {
  const server = new Server();
  const answer = (call: ServerUnaryCall<string, string>, callback: sendUnaryData<string>): void => {
    const code = Number(call.metadata.get('x-status')[0] ?? 0);
    if (code !== 0) callback({ code, details: 'as asked' });
    else callback(null, JSON.stringify({ name, metadata: plain(call.metadata), path: call.getPath() }));
  };
  const definition = Object.fromEntries(
    ECHO_METHODS.map((method) => [
      method,
      {
        path: `/echo.Echo/${method}`,
        requestStream: false,
        responseStream: false,
        requestSerialize: encodeText,
        requestDeserialize: decodeText,
        responseSerialize: encodeText,
        responseDeserialize: decodeText,
      },
    ]),
  );
  server.addService(definition, Object.fromEntries(ECHO_METHODS.map((method) => [method, answer])));
  server.bindAsync(`[::]:${grpcPort}`, ServerCredentials.createInsecure(), (error) => {
    if (error !== null) throw error;
  });
}

function plain(metadata: Metadata): Record<string, readonly string[]> {
  return Object.fromEntries(
    Object.keys(metadata.getMap()).map((key) => [key, metadata.get(key).map(String)]),
  );
}
