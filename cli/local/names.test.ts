import { describe, expect, test } from 'vitest';
import { checkName, meshName, parseLabel, parseNamedPort, parseWorkloadRef, podNetns } from './names.ts';

describe('names of a mesh', () => {
  test('one state folder always has the same name, another one another', () => {
    expect(meshName('/srv/a/.tulle')).toMatch(/^tulle-[0-9a-f]{6}$/);
    expect(meshName('/srv/a/.tulle')).toBe(meshName('/srv/a/.tulle'));
    expect(meshName('/srv/a/.tulle')).not.toBe(meshName('/srv/b/.tulle'));
  });

  test('workloads whose names run together get namespaces of their own', () => {
    const first = podNetns('tulle-123456', { namespace: 'a-b', name: 'c' });
    const second = podNetns('tulle-123456', { namespace: 'a', name: 'b-c' });
    expect(first).not.toBe(second);
  });
});

describe('what users write', () => {
  test('NS/NAME is read', () => {
    expect(parseWorkloadRef('shop/web-1')).toEqual({ namespace: 'shop', name: 'web-1' });
  });

  test.each(['web-1', 'shop/', '/web-1', 'a/b/c', 'Shop/web', 'shop/../x', 'shop/web_1', ''])(
    '%j is not a workload',
    (text) => {
      expect(() => parseWorkloadRef(text)).toThrow(/not a workload/);
    },
  );

  test.each(['a', 'web-1', '1', 'a'.repeat(63)])('%s is a name', (name) => {
    expect(checkName('--name', name)).toBe(name);
  });

  test.each(['', '-a', 'a-', 'A', 'a.b', 'a'.repeat(64), 'a/b', '..', 'a b'])('%j is not a name', (name) => {
    expect(() => checkName('--name', name)).toThrow(/--name .* is not a name/);
  });

  test.each([
    ['app=web', ['app', 'web']],
    ['app.kubernetes.io/name=web', ['app.kubernetes.io/name', 'web']],
    ['empty=', ['empty', '']],
  ] as const)('%s is a label', (text, label) => {
    expect(parseLabel(text)).toEqual(label);
  });

  test.each(['app', '=web', 'a b=c', 'app=a b', '/x=y', 'a/b/c=d', `k=${'v'.repeat(64)}`])(
    '%j is not a label',
    (text) => {
      expect(() => parseLabel(text)).toThrow(/not a label/);
    },
  );

  test('a named port is read', () => {
    expect(parseNamedPort('http=8080')).toEqual({ name: 'http', port: 8080 });
  });

  test.each(['8080', 'http', 'http=', 'http=0', 'http=65536', 'http=1e3', '80=80', 'HTTP=80', '=80'])(
    '%j is not a named port',
    (text) => {
      expect(() => parseNamedPort(text)).toThrow(/not a named port/);
    },
  );
});
