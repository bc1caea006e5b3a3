import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatIdentity, IdentityError, identitiesEqual, parseIdentity, principalOf } from './identity.ts';

test('a SPIFFE ID is its three parts', () => {
  const identity = parseIdentity('spiffe://cluster.local/ns/shop/sa/web');
  expect(identity).toEqual({ trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'web' });
  expect(principalOf(identity)).toBe('cluster.local/ns/shop/sa/web');
});

test.each([
  { when: 'empty', text: '' },
  { when: 'of another scheme', text: 'https://cluster.local/ns/a/sa/b' },
  { when: 'of an upper-case scheme', text: 'SPIFFE://cluster.local/ns/a/sa/b' },
  { when: 'of an upper-case trust domain', text: 'spiffe://Cluster.local/ns/a/sa/b' },
  { when: 'without a trust domain', text: 'spiffe:///ns/a/sa/b' },
  { when: 'with a port', text: 'spiffe://cluster.local:8443/ns/a/sa/b' },
  { when: 'with user information', text: 'spiffe://root@cluster.local/ns/a/sa/b' },
  { when: 'with a trailing slash', text: 'spiffe://cluster.local/ns/a/sa/b/' },
  { when: 'with an empty segment', text: 'spiffe://cluster.local/ns//sa/b' },
  { when: 'with a dot segment', text: 'spiffe://cluster.local/ns/../sa/b' },
  { when: 'with percent encoding', text: 'spiffe://cluster.local/ns/a%2fb/sa/b' },
  { when: 'with a query', text: 'spiffe://cluster.local/ns/a/sa/b?c' },
  { when: 'with a fragment', text: 'spiffe://cluster.local/ns/a/sa/b#c' },
  { when: 'with a NUL', text: 'spiffe://cluster.local/ns/a/sa/b\0' },
  { when: 'with a line feed', text: 'spiffe://cluster.local/ns/a/sa/b\n' },
  { when: 'with a letter outside ASCII', text: 'spiffe://cluster.local/ns/a/sa/bé' },
  { when: 'of a longer path', text: 'spiffe://cluster.local/ns/a/sa/b/c' },
  { when: 'of a trust domain above 255 bytes', text: `spiffe://${'a'.repeat(256)}/ns/a/sa/b` },
  { when: 'above 2048 bytes', text: `spiffe://cluster.local/ns/a/sa/${'b'.repeat(2048)}` },
])('a name $when is no SPIFFE ID', ({ text }) => {
  expect(() => parseIdentity(text)).toThrow(IdentityError);
});

test('every identity survives being written and read', () => {
  const segment = fc.stringMatching(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$/);
  const trustDomain = fc.stringMatching(/^[a-z0-9._-]{1,60}$/);
  fc.assert(
    fc.property(fc.record({ trustDomain, namespace: segment, serviceAccount: segment }), (identity) =>
      identitiesEqual(parseIdentity(formatIdentity(identity)), identity),
    ),
  );
});
