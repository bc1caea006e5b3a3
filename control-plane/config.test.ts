import { expect, test } from 'vitest';
import { parseControlPlaneConfig, UsageError } from './config.ts';

test('flags become settings', () => {
  const argv = [
    '--state',
    'dir',
    '-f',
    'a.yaml',
    '-f',
    'b',
    '--listen',
    '10.240.0.2:15012',
    '--svid-ttl',
    '1h30m',
  ];
  expect(parseControlPlaneConfig([...argv, '--nodes', 'n1,n2', '--log-level', 'debug'], {})).toEqual({
    stateDirectory: 'dir',
    paths: ['a.yaml', 'b'],
    listen: { ip: '10.240.0.2', port: 15012 },
    svidTtlMs: 5_400_000,
    nodes: ['n1', 'n2'],
    logLevel: 'debug',
  });
});

test('without flags there are defaults', () => {
  expect(parseControlPlaneConfig([], { LOG_LEVEL: 'warn' })).toEqual({
    stateDirectory: '.tulle',
    paths: [],
    listen: { ip: '127.0.0.1', port: 15012 },
    svidTtlMs: 86_400_000,
    nodes: [],
    logLevel: 'warn',
  });
});

test('an IPv6 address to listen on is in brackets', () => {
  expect(parseControlPlaneConfig(['--listen', '[fd00::2]:15012'], {}).listen).toEqual({
    ip: 'fd00::2',
    port: 15012,
  });
});

test.each([
  { when: 'a flag is unknown', argv: ['--stat', 'x'], message: /--stat/ },
  { when: 'a value is missing', argv: ['--state'], message: /--state/ },
  {
    when: 'the address has no port',
    argv: ['--listen', '10.0.0.1'],
    message: /--listen 10.0.0.1: expected IP:PORT/,
  },
  { when: 'the address is a name', argv: ['--listen', 'localhost:1'], message: /expected IP:PORT/ },
  { when: 'the port is none', argv: ['--listen', '10.0.0.1:70000'], message: /expected IP:PORT/ },
  { when: 'the life is none', argv: ['--svid-ttl', '24'], message: /--svid-ttl 24: expected a duration/ },
  { when: 'the life is too long', argv: ['--svid-ttl', '91d'], message: /between 10s and 90d/ },
  { when: 'the life is too short', argv: ['--svid-ttl', '5s'], message: /between 10s and 90d/ },
  {
    when: 'the level is none',
    argv: ['--log-level', 'loud'],
    message: /--log-level loud: expected one of error/,
  },
])('flags are refused when $when', ({ argv, message }) => {
  expect(() => parseControlPlaneConfig(argv, {})).toThrow(message);
  expect(() => parseControlPlaneConfig(argv, {})).toThrow(UsageError);
});

test('all faults are named at once', () => {
  expect(() => parseControlPlaneConfig(['--listen', 'x', '--svid-ttl', 'y'], {})).toThrow(
    /--listen x.*\n--svid-ttl y/,
  );
});
