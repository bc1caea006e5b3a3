import { Command } from 'commander';
import { expect, test } from 'vitest';
import { registerToken } from './token.ts';
import { registerUp } from './up.ts';

test.each([
  ['up', '--nodes', 'n1,waypoints'],
  ['up', '--external-node', 'waypoints'],
  ['token', '--node', 'waypoints'],
])('no node can be called like the folder of the tokens of waypoints: %s %s', async (...words) => {
  const program = new Command();
  registerUp(program);
  registerToken(program);
  await expect(program.parseAsync(words, { from: 'user' })).rejects.toThrow(
    'a node cannot be called waypoints: the files of waypoints are called so; choose another name',
  );
});
