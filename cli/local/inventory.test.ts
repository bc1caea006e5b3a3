import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  emptyInventory,
  InventoryError,
  inventoryFile,
  loadInventory,
  loadInventoryIfWhole,
  saveInventory,
} from './inventory.ts';
import { createStateFolder, type StateFolder } from './state-folder.ts';

let folder: string;
let state: StateFolder;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-inventory-'));
  state = createStateFolder(join(folder, 'state'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('what was saved is there at the next start, unless the machine was started anew', () => {
  const process = { name: 'ztunnel/n1', process: { pid: 7, startTime: 8 }, instance: 2, fingerprint: 'f' };
  const inventory = { ...emptyInventory(), namespaces: ['a'], processes: [{ ...process, serves: true }] };
  saveInventory(state, inventory);
  expect(loadInventory(state)).toEqual(inventory);
  saveInventory(state, { ...inventory, bootId: 'another' });
  expect(loadInventory(state)).toEqual(emptyInventory());
});

test.each(['', '{"bootId": "x', '[]', '{"bootId": 7}'])(
  'one that is damaged is named, with what to do: %j',
  (text) => {
    writeFileSync(inventoryFile(state), text);
    expect(() => loadInventory(state)).toThrow(InventoryError);
    expect(() => loadInventory(state)).toThrow(/fabric\.json is damaged .*tulle down --state/);
    expect(loadInventoryIfWhole(state)).toEqual(emptyInventory());
  },
);

test('processes that an earlier version wrote down are known, and served by nobody', () => {
  const { bootId } = emptyInventory();
  const processes = [{ name: 'control-plane', process: { pid: 7, startTime: 8 } }];
  writeFileSync(
    inventoryFile(state),
    JSON.stringify({ bootId, nodes: [], namespaces: [], processes, pods: [] }),
  );
  expect(loadInventory(state).processes).toMatchObject([{ name: 'control-plane', serves: false }]);
});
