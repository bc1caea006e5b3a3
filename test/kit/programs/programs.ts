import { join } from 'node:path';
import type { Call } from './calls.ts';
import type { TrafficPlan } from './traffic-lines.ts';

/** Command of a workload's server: see server.ts. */
export function serverCommand(name: string, httpPort = 8080, tcpPort = 9000): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'server.ts'), name, `${httpPort}`, `${tcpPort}`];
}

/** How one kind of the calls of a steady load has gone, so far or in all. */
export interface LoadOutcome {
  readonly ok: number;
  readonly failed: number;
  /** The first twenty, with their times. */
  readonly errors: readonly string[];
  /** The call that took longest. */
  readonly longestMs: number;
}

/** What a steady load writes. */
export type LoadReport = Readonly<Record<'short' | 'keepAlive' | 'long', LoadOutcome>>;

/** Command of a steady load: see load.ts. */
export function loadCommand(url: string, tcp: string, file: string): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'load.ts'), url, tcp, file];
}

/** Command of a load of new connections and DNS queries: see new-connections.ts. */
export function newConnectionsCommand(
  host: string,
  port: number,
  parallel: number,
  file: string,
): readonly string[] {
  const program = join(import.meta.dirname, 'new-connections.ts');
  return [process.execPath, program, host, `${port}`, `${parallel}`, file];
}

/** Command of a server that says what reached it: see echo.ts. */
export function echoCommand(
  name: string,
  httpPorts: readonly number[] = [8080],
  grpcPort?: number,
): readonly string[] {
  const grpc = grpcPort === undefined ? [] : [`${grpcPort}`];
  return [process.execPath, join(import.meta.dirname, 'echo.ts'), name, httpPorts.join(','), ...grpc];
}

/** Command of a client that sends these calls and prints the replies: see client.ts. */
export function clientCommand(calls: readonly Call[]): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'client.ts'), JSON.stringify(calls)];
}

/** Command of a load at a rate: see rate.ts. */
export function rateCommand(
  url: string,
  perSecond: number,
  connections: number,
  file: string,
  method = 'GET',
): readonly string[] {
  const program = join(import.meta.dirname, 'rate.ts');
  return [process.execPath, program, url, `${perSecond}`, `${connections}`, file, method];
}

/** Command of a server for all kinds of traffic: see traffic-server.ts. */
export function trafficServerCommand(name: string): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'traffic-server.ts'), name];
}

/** Command of mixed traffic: see traffic.ts. */
export function trafficCommand(plan: TrafficPlan): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'traffic.ts'), JSON.stringify(plan)];
}

/** Command of the server of long-lived connections: see long-lived.ts. */
export function longLivedServerCommand(port: number): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'long-lived.ts'), 'serve', `${port}`];
}

/** Command of a client that keeps connections to it, so many idle ones more than of other kinds: see long-lived.ts. */
export function longLivedCommand(host: string, port: number, file: string, idle = 0): readonly string[] {
  const program = join(import.meta.dirname, 'long-lived.ts');
  return [process.execPath, program, 'call', host, `${port}`, file, `${idle}`];
}

/** Command of a client for large figures: see sizes.ts. */
export function sizesCommand(what: 'bulk' | 'row', target: string, size: number): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'sizes.ts'), what, target, `${size}`];
}
