import { readFileSync } from 'node:fs';
import { usageError } from '../cli-error.ts';

/** Who a workload's command runs as. */
export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
  readonly shell: string;
}

/**
 * Finds a user by name or number in the text of /etc/passwd; a number needs no entry.
 * @throws CliError (usage)
 */
export function findUser(passwd: string, wanted: string): User {
  for (const line of passwd.split('\n')) {
    const [name = '', , uid = '', gid = '', , home = '/', shell = '/bin/sh'] = line.split(':');
    if (name !== '' && (name === wanted || uid === wanted)) {
      return { name, uid: Number(uid), gid: Number(gid), home, shell };
    }
  }
  if (/^\d{1,9}$/.test(wanted)) {
    return { name: wanted, uid: Number(wanted), gid: Number(wanted), home: '/', shell: '/bin/sh' };
  }
  throw usageError(`--user ${JSON.stringify(wanted)}: there is no such user`);
}

/** {@link findUser} on this host. Users of a directory service are found by number only. */
export function getUser(wanted: string): User {
  return findUser(readFileSync('/etc/passwd', 'utf8'), wanted);
}
