/**
 * `npm run test:long -- [--gib 10] [--at-once 2000] [--in-a-row 100000] [--capture auto]`: bytes through one connection, both ways and with a checksum,
 * connections at once, and one after the other; and whether memory, sockets and descriptors come back. Ends with 1 when something is
 * missing or left. Needs root.
 */
import { parseArgs } from 'node:util';
import { moveSizes } from './sizes.ts';

const { values } = parseArgs({
  options: {
    gib: { type: 'string', default: '10' },
    'at-once': { type: 'string', default: '2000' },
    'in-a-row': { type: 'string', default: '100000' },
    capture: { type: 'string', default: 'auto' },
  },
});
const sizes = {
  bytes: Number(values.gib) * 2 ** 30,
  atOnce: Number(values['at-once']),
  inARow: Number(values['in-a-row']),
  capture: values.capture,
};
await moveSizes(sizes, ({ name, found, isWhole, left, returnSeconds, before, after }) => {
  const isGood = isWhole && left.length === 0;
  console.log(
    `${isGood ? 'ok    ' : 'FAILED'} ${name}: ${JSON.stringify(found)}; back after ${returnSeconds} s`,
  );
  for (const key of Object.keys(after))
    console.log(`         ${key}: ${before[key] ?? 0} before, ${after[key]} after`);
  for (const each of left) console.log(`         LEFT ${each}`);
  if (!isGood) process.exitCode = 1;
});
