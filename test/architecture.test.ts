import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..');

/**
 * Who may import whom: the first row whose pattern fits the importing file counts; `may` lists what it may import
 * outside its own row. Tests beside the code may import whatever test/kit needs them to.
 */
const TABLE: readonly { readonly files: RegExp; readonly may: readonly RegExp[] }[] = [
  { files: /^certs\//, may: [/^certs\//] },
  { files: /^control-plane\/api\//, may: [/^control-plane\/api\//, /^certs\/identity\.ts$/] },
  { files: /^bpf\//, may: [/^bpf\//, /^control-plane\/api\/address\.ts$/, /^ztunnel\/capture\/native\.ts$/] },
  { files: /^control-plane\/source\//, may: [/^control-plane\/(source|api)\//] },
  {
    files: /^control-plane\/derive\//,
    may: [
      /^control-plane\/(derive|api)\//,
      /^control-plane\/source\/(route-)?objects\.ts$/,
      /^certs\/identity\.ts$/,
    ],
  },
  {
    files: /^control-plane\/serve\//,
    may: [/^control-plane\/(serve|api)\//, /^control-plane\/derive\//, /^certs\//],
  },
  { files: /^control-plane\//, may: [/^control-plane\//, /^certs\//] },
  { files: /^ztunnel\/tables\//, may: [/^ztunnel\/tables\//, /^control-plane\/api\//] },
  {
    files: /^ztunnel\/policy\//,
    may: [/^ztunnel\/(policy|tables)\//, /^control-plane\/api\//, /^certs\/identity\.ts$/],
  },
  {
    files: /^ztunnel\/hbone\//,
    may: [/^ztunnel\/hbone\//, /^ztunnel\/capture\/abrupt-close\.ts$/, /^control-plane\/api\//, /^certs\//],
  },
  {
    files: /^ztunnel\/dns\//,
    may: [
      /^ztunnel\/(dns|tables|capture)\//,
      /^ztunnel\/hand-over\/descriptors\.ts$/,
      /^control-plane\/api\//,
    ],
  },
  {
    files: /^ztunnel\/hand-over\//,
    may: [
      /^ztunnel\/(hand-over|capture)\//,
      /^ztunnel\/(http-listener|connection-record|worker-messages|hbone\/detached-socket)\.ts$/,
      /^control-plane\/api\//,
    ],
  },
  { files: /^ztunnel\/capture\//, may: [/^ztunnel\/capture\//, /^bpf\//, /^control-plane\/api\//] },
  { files: /^ztunnel\/zds\//, may: [/^ztunnel\/(zds|capture)\//, /^ztunnel\/worker-messages\.ts$/] },
  { files: /^ztunnel\//, may: [/^ztunnel\//, /^bpf\//, /^control-plane\/api\//, /^certs\//] },
  {
    files: /^waypoint\/(config|route)\//,
    may: [
      /^waypoint\/(config|route)\//,
      /^waypoint\/(model|exchange|request-record)\.ts$/,
      /^control-plane\/api\//,
      /^certs\/identity\.ts$/,
    ],
  },
  {
    files: /^waypoint\//,
    may: [
      /^waypoint\//,
      /^ztunnel\/(hbone|policy|tables|hand-over)\//,
      /^ztunnel\/capture\/in-pod-sockets\.ts$/,
      /^ztunnel\/(access-log-writer|failure-limit|shedding|http-listener|config-values|credential-sources|operator-listener|operator-routes|process-parts)\.ts$/,
      /^control-plane\/api\//,
      /^certs\//,
    ],
  },
  {
    files: /^cli\//,
    may: [
      /^cli\//,
      /^bpf\//,
      /^control-plane\//,
      /^certs\//,
      /^ztunnel\/(zds|capture|tables|policy|dns)\//,
      /^ztunnel\/(main|config|next-hop|caller|inbound-target|worker-messages|hbone\/headers)\.ts$/,
      /^waypoint\/(config|route)\//,
      /^waypoint\/(main|settings|setting-flags|model|exchange)\.ts$/,
    ],
  },
  { files: /^test\//, may: [/./] },
];

const SOURCES = globSync(['{certs,bpf,control-plane,ztunnel,waypoint,cli,test}/**/*.ts'], {
  cwd: ROOT,
}).filter((file) => !file.includes('/gen/'));

test('every file imports only what its place in the architecture allows', () => {
  const violations = SOURCES.filter((file) => !isTest(file)).flatMap((file) => {
    const row = TABLE.find(({ files }) => files.test(file));
    return importsOf(file)
      .filter((imported) => row === undefined || !row.may.some((pattern) => pattern.test(imported)))
      .map((imported) => `${file} imports ${imported}`);
  });
  expect(violations).toEqual([]);
});

test('only wiring reads the environment, ends the process or handles signals', () => {
  const wiring = /(^cli\/|^test\/|(^|\/)(main|config)\.ts$)/;
  const violations = SOURCES.filter((file) => !wiring.test(file)).filter((file) =>
    /process\.(env|argv|exit\b|on\()/.test(readFileSync(join(ROOT, file), 'utf8')),
  );
  expect(violations).toEqual([]);
});

/** Tests beside the code, and what only they use: `testing.ts`, `testing-worker.ts`. */
function isTest(file: string): boolean {
  return /(\.test|(^|\/)testing(-[a-z-]+)?)\.ts$/.test(file);
}

/** Project files that a file imports, relative to the root. */
function importsOf(file: string): readonly string[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const specifiers = [
    ...text.matchAll(/^(?:import|export)\b[^;]*?from '([^']+)';|import\('([^']+)'\)/gm),
  ].map((match) => match[1] ?? match[2] ?? '');
  return specifiers.flatMap((specifier) => {
    if (specifier.startsWith('.')) return [relative(ROOT, join(ROOT, dirname(file), specifier))];
    const [, folder = '', rest = ''] = /^#(api|[a-z-]+)\/(.+)$/.exec(specifier) ?? [];
    if (folder === '') return [];
    return [folder === 'api' ? `control-plane/api/${rest}` : `${folder}/${rest}`];
  });
}
