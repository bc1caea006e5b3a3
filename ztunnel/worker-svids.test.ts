import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseIdentity } from '#certs/identity.ts';
import { setRevoked } from '#certs/revoked.ts';
import { WorkerSvids, withoutSvid } from './worker-svids.ts';

const NAME = 'spiffe://cluster.local/ns/shop/sa/cart';
const CART = parseIdentity(NAME);
const LONGER_THAN_A_TEST_MS = 600_000;

let asked: string[];
let svids: WorkerSvids;

beforeEach(() => {
  asked = [];
  svids = new WorkerSvids({ ask: (identity) => asked.push(identity), onLost: () => {} });
});

afterEach(() => {
  svids.close();
  setRevoked({ identities: [], serials: [] });
});

test('nobody waits for the certificate of an identity that is revoked', async () => {
  setRevoked({ identities: [NAME], serials: [] });
  expect(await svids.until(CART, LONGER_THAN_A_TEST_MS)).toBeUndefined();
  expect(asked).toEqual([]);
  expect(withoutSvid(CART, 'source')).toBe(`${NAME} is revoked`);
});

test('who waits when an identity is revoked waits no longer', async () => {
  const waiting = svids.until(CART, LONGER_THAN_A_TEST_MS);
  expect(asked).toEqual([NAME]);
  expect(withoutSvid(CART, 'source')).toBe('no certificate for the source yet');
  setRevoked({ identities: [NAME], serials: [] });
  svids.noteRevoked();
  expect(await waiting).toBeUndefined();
});
