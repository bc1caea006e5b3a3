import { expect, test } from 'vitest';
import { OfferError, parseOffer, shareOf } from './offer.ts';

const SOCKET = { protocol: 'tcp', address: { ip: '::', port: 15001 }, fd: 20 };

test('an offer comes through as it was sent', () => {
  const offer = { pid: 12, netns: '4:5', sockets: [SOCKET] };
  expect(parseOffer(JSON.stringify(offer))).toEqual(offer);
});

test.each([
  { what: 'no JSON', text: '<html>', error: 'the answer is not JSON' },
  { what: 'null', text: 'null', error: 'the answer is no offer of sockets' },
  { what: 'no process', text: '{"netns":"4:5","sockets":[]}', error: 'the answer is no offer of sockets' },
  {
    what: 'a process that cannot be',
    text: '{"pid":-1,"netns":"4:5","sockets":[]}',
    error: 'the answer is no offer of sockets',
  },
  {
    what: 'a socket of another kind',
    text: JSON.stringify({ pid: 1, netns: '4:5', sockets: [{ ...SOCKET, protocol: 'sctp' }] }),
    error: 'not a socket that can be taken',
  },
  {
    what: 'an address that is none',
    text: JSON.stringify({ pid: 1, netns: '4:5', sockets: [{ ...SOCKET, address: { ip: 'x', port: 1 } }] }),
    error: 'not a socket that can be taken',
  },
])('$what is refused', ({ text, error }) => {
  expect(() => parseOffer(text)).toThrow(OfferError);
  expect(() => parseOffer(text)).toThrow(error);
});

test.each([1, 2, 3, 5])('every socket is the share of exactly one of %i workers, port by port', (workers) => {
  const sockets = [15001, 15006, 15001, 15008, 15001, 15006].map((port, fd) => ({
    address: { ip: '::', port },
    fd,
  }));
  const shares = Array.from({ length: workers }, (_, worker) => shareOf(sockets, worker, workers));
  expect(shares.flat().sort((a, b) => a.fd - b.fd)).toEqual(sockets);
  const counts = shares.map((share) => share.filter(({ address }) => address.port === 15001).length);
  expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
});
