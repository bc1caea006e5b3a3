import { expect, test } from 'vitest';
import { NO_MUTATIONS } from '../config/header-mutations.ts';
import { NO_FAULTS } from '../route/faults.ts';
import { backend, route } from '../route/testing.ts';
import { replyTo } from './decided-reply.ts';

test('the answer for a backend that is none has the headers of route, backend and CORS', () => {
  const { reply } = replyTo({
    kind: 'no-cluster',
    status: 500,
    backend: { ...backend('gone'), responseHeaders: { ...NO_MUTATIONS, set: [['x-a', 'backend']] } },
    route: route({ responseHeaders: { ...NO_MUTATIONS, add: [['x-a', 'route']] } }),
    corsHeaders: ['access-control-allow-origin', 'http://a'],
    path: '/',
    query: '',
    faults: NO_FAULTS,
  });
  expect(reply).toEqual({
    status: 500,
    body: '',
    headers: [...['x-a', 'backend', 'x-a', 'route'], ...['access-control-allow-origin', 'http://a']],
  });
});
