import { type Case, type Expectation, grpc, raw, request } from '../case.ts';
import { TRAILERS } from './own-headers.ts';

const call = (name: string, path: string, expect: Expectation, more: Partial<Case> = {}): Case => ({
  name,
  to: 'grpc',
  send: grpc(path),
  expect,
  ...more,
});

const fine = (upstream: string): Expectation => ({ status: 200, upstream, trailers: { 'grpc-status': '0' } });
const local = (status: string): Expectation => ({
  status: 200,
  upstream: null,
  headers: { 'grpc-status': status },
});

export const GRPC: readonly Case[] = [
  call('a path without method', '/echo.Echo', local('12')),
  call('a path with a slash at its end', '/echo.Echo/Say/', local('12')),
  call('a path with dots', '/x/../echo.Echo/Say', fine('grpc-a')),
  call('a query', '/echo.Echo/Say?x=1', { status: 200 }),
  call(
    'a time-out that the caller names',
    '/echo.Echo/Say',
    { status: 200 },
    {
      send: grpc('/echo.Echo/Say', { 'grpc-timeout': '100m' }),
      script: 'slow:300',
    },
  ),
  call('gRPC with a format', '/echo.Echo/Whisper', local('12'), {
    send: grpc('/echo.Echo/Whisper', { 'content-type': 'application/grpc+proto' }),
  }),
  call(
    'gRPC of the web',
    '/echo.Echo/Whisper',
    {},
    {
      send: grpc('/echo.Echo/Whisper', { 'content-type': 'application/grpc-web' }),
    },
  ),
  call(
    'half of an answer',
    '/echo.Echo/Say',
    { upstream: 'grpc-a', end: 'incomplete' },
    { script: 'half-reset' },
  ),
  call('a method', '/echo.Echo/Say', fine('grpc-a')),
  call('another method', '/echo.Echo/Shout', fine('grpc-b')),
  call('a method in small letters', '/echo.Echo/say', local('12')),
  call('a method that nothing names', '/echo.Echo/Whisper', local('12')),
  call('a service', '/echo.Other/Anything', fine('grpc-b')),
  call('a service that only begins so', '/echo.OtherOne/X', local('12')),
  call('a regular expression', '/pattern.one.Two/GetIt', fine('grpc-a')),
  call('a regular expression that does not fit', '/pattern.one.Two/SetIt', local('12')),
  call('a method of any service', '/some.Service/Anywhere', fine('grpc-b')),
  call('a header', '/echo.Headers/X', fine('grpc-b'), { send: grpc('/echo.Headers/X', { version: 'two' }) }),
  call('without that header', '/echo.Headers/X', fine('grpc-a')),
  call(
    'changed headers',
    '/echo.Modified/X',
    { ...fine('grpc-a'), seenHeaders: { 'x-set': '1', 'x-gone': null }, headers: { 'x-answer': '1' } },
    {
      send: grpc('/echo.Modified/X', { 'x-gone': '1' }),
    },
  ),
  call('no endpoints', '/echo.Nowhere/X', local('14')),
  call('a service that is not there', '/echo.Missing/X', { status: 200, upstream: null }),
  call('nobody listens', '/echo.Dead/X', local('14')),
  call(
    'a status with headers',
    '/echo.Echo/Say',
    { status: 200, upstream: 'grpc-a', headers: { 'grpc-status': '5' } },
    { script: 'grpc:5' },
  ),
  call(
    'a status after a message',
    '/echo.Echo/Say',
    { status: 200, upstream: 'grpc-a', trailers: { 'grpc-status': '13' } },
    { script: 'grpc-late:13' },
  ),
  call('an answer that is no gRPC', '/echo.Echo/Say', { upstream: 'grpc-a' }, { script: '503' }),
  call('a reset', '/echo.Echo/Say', local('14'), { script: 'reset' }),
  call('a refused stream', '/echo.Echo/Say', { ...fine('grpc-a'), attempts: 2 }, { script: 'refuse,200' }),
  call(
    'a request that is no gRPC',
    '/echo.Echo/Say',
    {},
    { send: request('POST', '/echo.Echo/Say', { protocol: 'http2', body: 'x' }) },
  ),
  call('a GET', '/echo.Echo/Say', {}, { send: request('GET', '/echo.Echo/Say', { protocol: 'http2' }) }),
  call(
    'over HTTP/1.1',
    '/echo.Echo/Say',
    {},
    {
      send: request('POST', '/echo.Echo/Say', {
        headers: { 'content-type': 'application/grpc', te: 'trailers' },
        body: '\0\0\0\0\0',
      }),
    },
  ),
  call('request trailers', '/echo.Echo/Say', fine('grpc-a'), {
    send: { ...grpc('/echo.Echo/Say'), trailers: [['x-client-trailer', 'yes']] },
  }),
];

const over2 = (name: string, path: string, expect: Expectation, more: Partial<Case> = {}): Case => ({
  name,
  to: 'h2-routes',
  send: request('GET', path, { protocol: 'http2' }),
  expect,
  ...more,
});

export const PROTOCOLS: readonly Case[] = [
  over2('HTTP/2 to HTTP/2', '/x', { status: 200, upstream: 'h2' }),
  over2('HTTP/2 to HTTP/1', '/h1', { status: 200, upstream: 'a' }),
  over2('HTTP/1 to HTTP/2', '/x', { status: 200, upstream: 'h2' }, { send: request('GET', '/x') }),
  over2('HTTP/1 to HTTP/1', '/h1', { status: 200, upstream: 'a' }, { send: request('GET', '/h1') }),
  over2(
    'a body, HTTP/2 to HTTP/2',
    '/x',
    { status: 200, seenBody: 'abc' },
    { send: request('POST', '/x', { protocol: 'http2', body: 'abc' }) },
  ),
  over2(
    'a body, HTTP/1 to HTTP/2',
    '/x',
    { status: 200, seenBody: 'abc' },
    { send: request('POST', '/x', { body: 'abc', chunked: true }) },
  ),
  over2(
    'a body, HTTP/2 to HTTP/1',
    '/h1',
    { status: 200, seenBody: 'abc' },
    { send: request('POST', '/h1', { protocol: 'http2', body: 'abc' }) },
  ),
  over2(
    '300 KiB, HTTP/2 to HTTP/2',
    '/x',
    { status: 200 },
    { send: request('POST', '/x', { protocol: 'http2', bodyBytes: 300 * 1024 }) },
  ),
  over2(
    'trailers, HTTP/2 to HTTP/2',
    '/x',
    { status: 200, trailers: { 'x-trailer': 'yes' } },
    { script: 'trailers' },
  ),
  over2(
    'trailers, HTTP/2 to HTTP/1',
    '/h1',
    { status: 200, trailers: { 'x-trailer': 'yes' } },
    { script: 'trailers' },
  ),
  {
    ...over2(
      'trailers, HTTP/1 to HTTP/2',
      '/x',
      { status: 200, trailers: { 'x-trailer': 'yes' } },
      { send: request('GET', '/x'), script: 'trailers' },
    ),
    expect: { status: 200, body: 'with trailers\n' },
    differs: TRAILERS,
  },
  over2(
    'trailers of a request',
    '/x',
    { status: 200 },
    {
      send: request('POST', '/x', {
        protocol: 'http2',
        body: 'abc',
        trailers: [['x-client-trailer', 'yes']],
      }),
    },
  ),
  over2(
    'half of the body, HTTP/2 to HTTP/2',
    '/x',
    { status: 200, end: 'incomplete' },
    { script: 'half-reset' },
  ),
  over2(
    'an upstream that goes away',
    '/x',
    { status: 503, upstream: null },
    { to: 'h2-pair', script: 'close' },
  ),
  over2('a timeout', '/timeout', { status: 504 }, { script: 'slow:1500' }),
  over2('a HEAD', '/x', { status: 200, body: '' }, { send: request('HEAD', '/x', { protocol: 'http2' }) }),
  over2(
    'cookies in two fields',
    '/h1',
    { status: 200 },
    {
      send: request('GET', '/h1', {
        protocol: 'http2',
        headers: [
          ['cookie', 'a=1'],
          ['cookie', 'b=2'],
        ],
      }),
    },
  ),
  {
    name: 'a WebSocket',
    to: 'a',
    send: raw(
      [
        'GET /ws HTTP/1.1',
        'Host: a.interop.svc.cluster.local',
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      ],
      '',
      { afterHead: 'hello and bye' },
    ),
    expect: { status: 101, upstream: 'a', body: 'HELLO AND BYE', end: 'complete' },
  },
  {
    name: 'a WebSocket that is refused',
    to: 'a',
    send: raw([
      'GET /ws HTTP/1.1',
      'Host: a.interop.svc.cluster.local',
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ]),
    script: '403',
    expect: { status: 403, upstream: 'a', body: 'no' },
  },
  {
    name: 'a WebSocket through a route',
    to: 'rewrite',
    send: raw(
      [
        'GET /prefix/one/ws HTTP/1.1',
        'Host: shop.example',
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      ],
      '',
      { afterHead: 'bye' },
    ),
    expect: { status: 101, upstream: 'a', body: 'BYE', seenPath: '/one/ws' },
  },
];
