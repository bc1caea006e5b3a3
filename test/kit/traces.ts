import { createHash } from 'node:crypto';
import { existsSync, globSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { mustRun } from './command.ts';

/** Everything of the host that a mesh could leave something in. */
export async function tracesOf(state: string): Promise<readonly string[]> {
  const hash = createHash('sha256').update(realpathSync(state)).digest('hex').slice(0, 6);
  const namespaces = (await mustRun(['ip', 'netns', 'list']))
    .split('\n')
    .filter((line) => line.includes(hash));
  const links = (await mustRun(['ip', '-o', 'link'])).split('\n').filter((line) => line.includes(hash));
  const cgroups = globSync(`/sys/fs/cgroup/{,*/}*${hash}*`);
  const etc = existsSync('/etc/netns') ? readdirSync('/etc/netns').filter((name) => name.includes(hash)) : [];
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && name !== `${process.pid}`)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(state);
      } catch {
        return false;
      }
    });
  return [...namespaces, ...links, ...cgroups, ...etc, ...processes.map((pid) => `process ${pid}`)];
}
