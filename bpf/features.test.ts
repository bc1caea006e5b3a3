import { expect, test } from 'vitest';
import { NativeError } from '#ztunnel/capture/native.ts';
import { BpfError, BpfUnsupportedError } from './errors.ts';
import { attempt } from './features.ts';

test.each([
  { errno: 1, code: 'EPERM', error: BpfUnsupportedError },
  { errno: 22, code: 'EINVAL', error: BpfUnsupportedError },
  { errno: 24, code: 'EMFILE', error: BpfError },
  { errno: 12, code: 'ENOMEM', error: BpfError },
  { errno: 28, code: 'ENOSPC', error: BpfError },
])('that something fails with $code is $error.name', ({ errno, code, error }) => {
  const tried = (): never =>
    attempt('sk_lookup', 'no network namespace can be made', () => {
      throw new NativeError('unshare', errno);
    });
  expect(tried).toThrow(error);
  expect(tried).toThrow(new RegExp(`^no network namespace can be made.*: .*${code}`));
});
