import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ClientAddresses } from './client-addresses.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('a client that comes and goes is not forgotten while it has a session', () => {
  const clients = new ClientAddresses({ burst: 1, perSecond: 0 });
  clients.closed(clients.opened('a'));
  vi.advanceTimersByTime(2_000);
  clients.closed(clients.opened('a'));
  vi.advanceTimersByTime(9_000);
  const back = clients.opened('a');
  expect(back.sessions).toBe(1);
  vi.advanceTimersByTime(5_000);
  expect(clients.opened('a')).toBe(back);
});
