import { describe, expect, test } from 'vitest';
import { enterCommand, needsOwnSession, parseCapability } from './enter.ts';
import { findUser } from './users.ts';

const PASSWD = 'root:x:0:0:root:/root:/bin/bash\nana:x:1000:1001:Ana:/home/ana:/bin/zsh\n';

describe('who a command runs as', () => {
  test.each(['ana', '1000'])('%s is found', (wanted) => {
    expect(findUser(PASSWD, wanted)).toEqual({
      name: 'ana',
      uid: 1000,
      gid: 1001,
      home: '/home/ana',
      shell: '/bin/zsh',
    });
  });

  test('a number needs no entry', () => {
    expect(findUser(PASSWD, '4000')).toMatchObject({ uid: 4000, gid: 4000 });
  });

  test('a name without an entry is refused', () => {
    expect(() => findUser(PASSWD, 'eve')).toThrow(/no such user/);
  });
});

describe('capabilities', () => {
  test.each(['NET_RAW', 'CAP_NET_RAW', 'net_raw'])('%s is read', (text) => {
    expect(parseCapability(text)).toBe('net_raw');
  });

  test('an unknown one is refused', () => {
    expect(() => parseCapability('FLY')).toThrow(/no such capability/);
  });

  test('a command keeps the one for low ports and what was added, root included', () => {
    const enclosure = {
      netns: 'tulle-1-pod-a_b',
      cgroup: '/sys/fs/cgroup/tulle-1/pods/a_b',
      user: findUser(PASSWD, 'root'),
      capabilities: ['net_raw'],
    };
    const line = enterCommand(enclosure, 7, '/srv', ['id']).join(' ');
    expect(line).toContain('--bounding-set=-all,+net_bind_service,+net_raw');
    expect(line).toContain('--no-new-privs');
    expect(line).toContain('--mount=/proc/7/ns/mnt');
  });
});

describe('the terminal of the caller', () => {
  test.each([undefined, '1\n'])('is out of reach where others may type into it (%j)', (setting) => {
    expect(needsOwnSession(true, setting)).toBe(true);
  });

  test('is shared where nobody may', () => {
    expect(needsOwnSession(true, '0\n')).toBe(false);
  });

  test('asks for nothing where there is none', () => {
    expect(needsOwnSession(false, undefined)).toBe(false);
  });
});
