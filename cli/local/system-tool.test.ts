import { expect, test } from 'vitest';
import { requireTools, runTool } from './system-tool.ts';

test('what a tool prints is returned, what it is given is its input', async () => {
  expect(await runTool(['cat'], 'text')).toBe('text');
});

test('a tool that fails says what it complained about', async () => {
  await expect(runTool(['sh', '-c', 'echo no such link >&2; exit 2'])).rejects.toThrow(
    /failed: no such link$/,
  );
});

test('a tool that is not there is named', async () => {
  await expect(runTool(['no-such-tool'])).rejects.toThrow(/cannot run no-such-tool: is it installed/);
});

test('missing tools are named all at once, with the remedy', () => {
  expect(() => requireTools('/nowhere')).toThrow(
    /not installed: ip, nft, .*prepare installs what is missing/,
  );
});
