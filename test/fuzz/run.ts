import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { parseArgs } from 'node:util';

// npm run fuzz -- --seconds 60 [--seed N] [NAME …]: each property for so long, with cases that are new each time.

const { values, positionals } = parseArgs({
  options: { seconds: { type: 'string', default: '30' }, seed: { type: 'string' } },
  allowPositionals: true,
});
const seed = values.seed ?? String(randomInt(1, 2 ** 31));
const files = positionals.length > 0 ? positionals.map((name) => `test/fuzz/${name}`) : ['test/fuzz'];
process.stdout.write(`seed ${seed}: give it again with --seed ${seed}\n`);
const child = spawn(
  'vitest',
  ['run', '--config', 'test/vitest.config.ts', '--project', 'unit', '--testTimeout', '0', ...files],
  { stdio: 'inherit', env: { ...process.env, TULLE_FUZZ_SECONDS: values.seconds, TULLE_FUZZ_SEED: seed } },
);
const [code] = await once(child, 'exit');
process.exitCode = typeof code === 'number' ? code : 1;
