import { type Case, type Expectation, type Field, get, request } from '../case.ts';

const HOST = 'headers.interop.svc.cluster.local';

const headers = (name: string, path: string, fields: readonly Field[], expect: Expectation): Case => ({
  name,
  to: 'headers',
  send: get(path, fields),
  expect: { status: 200, upstream: 'a', ...expect },
});

export const HEADERS: readonly Case[] = [
  headers('a failed answer is changed, too', '/response/set', [['x-script', '503']], {
    status: 503,
    headers: { 'x-from-app': 'route' },
  }),
  headers('an answer that never came is changed, too', '/response/add', [['x-script', 'reset']], {
    status: 503,
    upstream: null,
    headers: { 'x-more': '1' },
  }),
  headers('set, absent', '/set', [], { seenHeaders: { 'x-set': 'new', 'x-other': 'other' } }),
  headers('set, present', '/set', [['X-Set', 'old']], { seenHeaders: { 'x-set': 'new' } }),
  headers(
    'set, present twice',
    '/set',
    [
      ['x-set', 'old'],
      ['x-set', 'older'],
    ],
    { seenHeaders: { 'x-set': 'new' } },
  ),
  headers('add, absent', '/add', [], { seenHeaders: { 'x-add': 'added' } }),
  headers('remove, absent', '/remove', [['x-stays', '1']], {
    seenHeaders: { 'x-stays': '1', 'x-gone': null },
  }),
  headers(
    'remove, present twice and in capitals',
    '/remove',
    [
      ['X-GONE', '1'],
      ['x-gone', '2'],
      ['x-also-gone', '3'],
    ],
    { seenHeaders: { 'x-gone': null, 'x-also-gone': null } },
  ),
  headers(
    'set, add and remove',
    '/all',
    [
      ['x-set', 'old'],
      ['x-gone', '1'],
    ],
    { seenHeaders: { 'x-set': 'new', 'x-add': 'added', 'x-gone': null } },
  ),
  headers('a rule without filters changes nothing', '/local', [], { status: 503, upstream: null }),
  headers('set on the answer', '/response/set', [], { headers: { 'x-from-app': 'route' } }),
  headers('add to the answer', '/response/add', [], { headers: { 'x-more': '1' } }),
  headers('remove from the answer', '/response/remove', [], {
    headers: { 'x-drop': null, 'x-from-app': null },
  }),
  headers('a cookie more on the answer', '/response/cookie', [], {
    headers: { 'set-cookie': 'app=1, app=2, route=3' },
  }),
  headers('request and answer', '/both', [], {
    seenHeaders: { 'x-set': 'new' },
    headers: { 'x-set-too': 'new' },
  }),
  headers('on a backend', '/backend', [['x-gone', '1']], {
    seenHeaders: { 'x-backend': 'a', 'x-gone': null },
    headers: { 'x-backend': 'a' },
  }),
  headers('on rule and backend', '/rule-and-backend', [['x-set', 'client']], {}),
  headers('on rule and backend, answer', '/response-rule-and-backend', [], {}),
  headers(
    'set what the client brings, remove what it brings',
    '/user-agent',
    [
      ['user-agent', 'client'],
      ['accept', '*/*'],
    ],
    { seenHeaders: { 'user-agent': 'mesh', accept: null } },
  ),
  headers('per cent signs are only per cent signs', '/percent', [], {
    seenHeaders: { 'x-percent': '100% %REQ(:path)% %%' },
    headers: { 'x-percent': '50% off %PROTOCOL%' },
  }),
  {
    name: 'add, present',
    to: 'headers',
    send: get('/add', { 'x-add': 'client' }),
    expect: { status: 200, seenHeaders: { 'x-add': 'client, added' } },
  },
  {
    name: 'over HTTP/2',
    to: 'headers',
    send: request('GET', '/all', { protocol: 'http2', headers: { 'x-set': 'old', 'x-gone': '1' } }),
    expect: { seenHeaders: { 'x-set': 'new', 'x-add': 'added', 'x-gone': null, host: HOST } },
  },
];
