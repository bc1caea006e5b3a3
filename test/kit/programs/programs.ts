import { join } from 'node:path';

/** Command of a workload's server: see server.ts. */
export function serverCommand(name: string, httpPort = 8080, tcpPort = 9000): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'server.ts'), name, `${httpPort}`, `${tcpPort}`];
}

/** Command of a steady load: see load.ts. */
export function loadCommand(url: string, tcp: string, file: string): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'load.ts'), url, tcp, file];
}
