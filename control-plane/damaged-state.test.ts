import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { StartError } from './main.ts';
import { openState, type TestState } from './testing-state.ts';

/** A state folder on which a control plane has run, with a file of it as a power cut may leave it. */
async function damaged(file: string, damage: (text: Buffer) => Buffer): Promise<TestState> {
  const state = openState();
  const first = await state.open();
  await first[Symbol.asyncDispose]();
  const path = join(state.directory, file);
  writeFileSync(path, damage(readFileSync(path)));
  return state;
}

const half = (text: Buffer): Buffer => text.subarray(0, Math.floor(text.length / 2));
const nothing = (): Buffer => Buffer.alloc(0);
const noise = (text: Buffer): Buffer => Buffer.concat([Buffer.from('\0\0noise'), text.subarray(7)]);

test.each([
  ['ca/root.pem', /set|restore|state folder/],
  ['ca/root.key', /set|restore|state folder/],
  ['ca/issuing.pem', /set|restore|state folder/],
  ['ca/issuing.key', /set|restore|state folder/],
  ['config/vips.json', /restore it, or remove it/],
  ['config/settings.json', /remove it/],
])('a control plane does not start beside a damaged %s, and says what to do', async (file, remedy) => {
  for (const damage of [half, nothing, noise]) {
    await using state = await damaged(file, damage);
    const error = await state.open().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StartError);
    expect((error as StartError).message).toContain(file);
    expect((error as StartError).message).toMatch(remedy);
  }
});

test('one with a damaged list of what was issued names it, and what to do', async () => {
  await using state = await damaged('issued.sqlite', noise);
  await expect(state.open()).rejects.toThrow(/issued\.sqlite cannot be used .*move it away/);
});

test.each([half, nothing, noise])(
  'last good objects that are damaged keep nobody from starting',
  async (damage) => {
    await using state = await damaged('config/objects.json', damage);
    await using _ = await state.open();
    expect((await state.status()).problems).toMatchObject([
      { message: expect.stringContaining('cannot be read'), effect: 'the last good versions are not known' },
    ]);
  },
);
