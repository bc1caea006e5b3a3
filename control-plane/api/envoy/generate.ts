/**
 * Generates TypeScript for the parts of Envoy's API that a waypoint is configured with, from the .proto files that
 * `@grpc/grpc-js-xds` carries. Run by `npm run generate`.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const DEPS = join(ROOT, 'node_modules', '@grpc', 'grpc-js-xds', 'deps');
const TREES = ['envoy-api', 'xds', 'googleapis', 'protoc-gen-validate'];

/** The files that are used; what they import comes with them. */
const WANTED = [
  'envoy/config/listener/v3/listener.proto',
  'envoy/config/route/v3/route.proto',
  'envoy/config/cluster/v3/cluster.proto',
  'envoy/config/endpoint/v3/endpoint.proto',
  'envoy/extensions/filters/common/fault/v3/fault.proto',
  'envoy/extensions/filters/http/cors/v3/cors.proto',
  'envoy/extensions/filters/http/fault/v3/fault.proto',
  'envoy/extensions/filters/http/router/v3/router.proto',
  'envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto',
  'envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto',
  'envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto',
  'envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto',
  'envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto',
  'envoy/extensions/http/stateful_session/cookie/v3/cookie.proto',
  'envoy/extensions/http/stateful_session/header/v3/header.proto',
  'envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto',
  'envoy/extensions/transport_sockets/tls/v3/tls.proto',
  'envoy/extensions/upstreams/http/v3/http_protocol_options.proto',
];

function find(file: string): string | undefined {
  return TREES.map((tree) => join(DEPS, tree, file)).find((path) => existsSync(path));
}

/** Copies a file and all that it imports. */
function gather(file: string, into: string, seen: Set<string>): void {
  if (seen.has(file)) return;
  seen.add(file);
  const path = find(file);
  if (path === undefined) return; // google/protobuf/… is known to the generator.
  const target = join(into, file);
  mkdirSync(dirname(target), { recursive: true });
  const text = withoutAnnotations(readFileSync(path, 'utf8'));
  writeFileSync(target, text);
  for (const [, imported = ''] of text.matchAll(/^import (?:public )?"([^"]+)";/gm))
    gather(imported, into, seen);
}

/** What remains is what is on the wire: without comments, rules for validators, and marks of API versions. */
function withoutAnnotations(proto: string): string {
  return proto
    .replaceAll(/^\s*\/\/.*$/gm, '')
    .replaceAll(/^import "(validate|udpa\/annotations|xds\/annotations|envoy\/annotations)\/[^"]*";$/gm, '')
    .replaceAll(/^\s*option \([^;]*;/gm, '')
    .replaceAll(/(= \d+)\s*\[((?:[^[\]]|\[[^\]]*\])*)\];/g, (_all, number: string, options: string) =>
      /\bdeprecated = true/.test(options) ? `${number} [deprecated = true];` : `${number};`,
    );
}

const folder = mkdtempSync(join(tmpdir(), 'envoy-api-'));
try {
  const seen = new Set<string>();
  for (const file of WANTED) gather(file, folder, seen);
  writeFileSync(join(folder, 'buf.yaml'), 'version: v2\n');
  const template = {
    version: 'v2',
    clean: true,
    plugins: [
      {
        local: join(ROOT, 'node_modules', '.bin', 'protoc-gen-es'),
        out: join(import.meta.dirname, 'gen'),
        opt: ['target=ts', 'import_extension=ts', 'erasable_syntax=true'],
      },
    ],
  };
  const { status } = spawnSync(
    join(ROOT, 'node_modules', '.bin', 'buf'),
    ['generate', '--template', JSON.stringify(template)],
    { cwd: folder, stdio: 'inherit' },
  );
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true });
}
