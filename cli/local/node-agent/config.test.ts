import { expect, test } from 'vitest';
import { NodeAgentConfigError, parseNodeAgentConfig } from './config.ts';

test('all flags are read', () => {
  const argv = ['--state', '/s', '--node', 'n1', '--control-plane', 'https://10.240.0.2:15012'];
  expect(parseNodeAgentConfig(argv, {})).toEqual({
    stateDirectory: '/s',
    node: 'n1',
    controlPlane: 'https://10.240.0.2:15012',
    nameServers: [],
    logLevel: 'info',
    capture: { method: 'auto' },
  });
  const more = ['--egress-netns', '/proc/self/fd/3', '--name-servers', '1.1.1.1,fd00::53'];
  expect(parseNodeAgentConfig([...argv, ...more], { LOG_LEVEL: 'debug' })).toMatchObject({
    egressNetns: '/proc/self/fd/3',
    nameServers: [
      { ip: '1.1.1.1', port: 53 },
      { ip: 'fd00::53', port: 53 },
    ],
    logLevel: 'debug',
  });
});

test('how pods are captured is said with where eBPF has its place, and why it is not wanted', () => {
  const argv = ['--node', 'n1', '--control-plane', 'https://10.240.0.2:15012'];
  const place = ['--bpf-directory', '/sys/fs/bpf/tulle/m', '--cgroup', '/sys/fs/cgroup/m'];
  const ebpf = { directory: '/sys/fs/bpf/tulle/m', cgroup: '/sys/fs/cgroup/m' };
  expect(parseNodeAgentConfig([...argv, ...place], {}).capture).toEqual({ method: 'auto', ebpf });
  const rules = ['--capture', 'nftables', '--capture-reason', 'external node'];
  expect(parseNodeAgentConfig([...argv, ...place, ...rules], {}).capture).toEqual({
    method: 'nftables',
    reason: 'external node',
    ebpf,
  });
  expect(() => parseNodeAgentConfig([...argv, '--capture', 'ebpf'], {})).toThrow(
    '--bpf-directory is missing',
  );
  expect(() => parseNodeAgentConfig([...argv, '--cgroup', '/c'], {})).toThrow('one needs the other');
  expect(() => parseNodeAgentConfig([...argv, '--capture', 'iptables'], {})).toThrow('--capture: iptables');
});

test('every fault is told at once', () => {
  const argv = [
    '--node',
    '../x',
    '--control-plane',
    'http://a',
    '--name-servers',
    'nowhere',
    '--log-level',
    'loud',
  ];
  expect(() => parseNodeAgentConfig(argv, {})).toThrow(NodeAgentConfigError);
  expect(() => parseNodeAgentConfig(argv, {})).toThrow(
    /--node: .*\n--control-plane: .*\n--name-servers: .*\n--log-level: /,
  );
});

test('an unknown flag is refused', () => {
  expect(() => parseNodeAgentConfig(['--nodes', 'a'], {})).toThrow("'--nodes'");
});
