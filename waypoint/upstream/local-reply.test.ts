import { expect, test } from 'vitest';
import { formatReply } from './local-reply.ts';

test('a text has a type and a length', () => {
  const { headers } = formatReply({ status: 503, body: 'gone' }, false);
  expect(headers).toEqual(['content-length', '4', 'content-type', 'text/plain']);
});

test('a type that a route sets stands where there is a body, a length never', () => {
  const set = ['content-type', 'text/html', 'content-length', '9', 'x-a', '1'];
  expect(formatReply({ status: 503, body: 'gone', headers: set }, false).headers).toEqual([
    ...['content-length', '4', 'content-type', 'text/html', 'x-a', '1'],
  ]);
  expect(formatReply({ status: 302, body: '', headers: set }, false).headers).toEqual([
    ...['content-length', '0', 'x-a', '1'],
  ]);
});

test('to gRPC the type is its own, a status that a route sets stands', () => {
  const set = ['content-type', 'text/html', 'grpc-status', '5', 'grpc-message', 'no', 'x-a', '1'];
  expect(formatReply({ status: 503, body: 'gone', headers: set }, true).headers).toEqual([
    ...['content-type', 'application/grpc', 'grpc-status', '5', 'grpc-message', 'gone', 'x-a', '1'],
  ]);
});
