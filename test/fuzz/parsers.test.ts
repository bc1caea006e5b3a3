import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');

/** What is exported under a name like these reads something that somebody else has written. */
const PARSER =
  /^export (?:async )?(?:function|class) ((?:parse|read|decode|detect)[A-Z]\w*|(?<=class )\w+(?:Reader|Parser|Decoder))\b/gm;

/** Parsers that no fuzzer here calls by name, and why none has to. */
const ELSEWHERE: readonly { readonly which: RegExp; readonly why: string }[] = [
  { which: /^cli\//, why: 'words of the operator, and files that only root writes' },
  { which: /(config|settings)\.ts parse\w+(Config|Settings)$/, why: 'flags and environment of a process' },
  { which: /channel\.ts parseControlPlaneAddress$/, why: 'a flag' },
  {
    which: /credential-sources\.ts |authority-files\.ts |replace-file\.ts |rotation-file\.ts readRotation$/,
    why: 'reads a file; what is in it is parsed by others',
  },
  { which: /^bpf\/objects\.ts /, why: 'a file of this repository' },
  { which: /read-into\.ts /, why: 'moves bytes and looks at none' },
  { which: /^control-plane\/source\/(parse-files|read-object)\.ts /, why: 'within readText' },
  { which: /^control-plane\/derive\/.* (?!readVips)/, why: 'takes what readText has checked' },
  { which: /^control-plane\/api\/codec-\w+\.ts /, why: 'within decodeResource' },
  { which: /^waypoint\/config\/decode\.ts /, why: 'within the store of a waypoint' },
];

test('every parser has a fuzzer, or a reason', () => {
  const fuzzed = new Set(
    globSync('test/fuzz/*.test.ts', { cwd: ROOT })
      .flatMap((file) => [
        ...readFileSync(join(ROOT, file), 'utf8').matchAll(/import \{([^}]*)\} from '#([^']+)'/g),
      ])
      .flatMap(([, names = '', path = '']) =>
        names
          .split(',')
          .map(
            (name) => `${path.replace(/^api\//, 'control-plane/api/')} ${name.replace('type ', '').trim()}`,
          ),
      ),
  );
  const parsers = globSync('{certs,bpf,control-plane,ztunnel,waypoint,cli}/**/*.ts', {
    cwd: ROOT,
    exclude: (name) => name === 'gen' || name.endsWith('.test.ts') || name.startsWith('testing'),
  }).flatMap((file) =>
    [...readFileSync(join(ROOT, file), 'utf8').matchAll(PARSER)].map(([, name = '']) => `${file} ${name}`),
  );
  const isElsewhere = (parser: string): boolean => ELSEWHERE.some(({ which }) => which.test(parser));
  expect(parsers.filter((parser) => !fuzzed.has(parser) && !isElsewhere(parser))).toEqual([]);
  for (const { which, why } of ELSEWHERE)
    expect(
      parsers.some((parser) => which.test(parser)),
      why,
    ).toBe(true);
});
