import { expect, test } from 'vitest';
import { requireCapabilities, requireTools, runTool } from './system-tool.ts';

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

test.each([
  { capabilities: '000001ffffdfffff', missing: /: CAP_SYS_ADMIN missing; in a container/ },
  { capabilities: '00000000a80425fb', missing: /: CAP_SYS_ADMIN and CAP_NET_ADMIN missing/ },
])('a root with $capabilities only is told what it lacks', ({ capabilities, missing }) => {
  expect(() => requireCapabilities(`Name:\tnode\nCapEff:\t${capabilities}\nCapBnd:\t0\n`)).toThrow(missing);
  expect(() => requireCapabilities('CapEff:\t000001ffffffffff\n')).not.toThrow();
});
