import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Identity, parseIdentity } from '#certs/identity.ts';
import { temporaryAuthority } from '#certs/testing.ts';
import { ask, WAYPOINT } from '#waypoint/downstream/testing.ts';
import { TunnelDuplex } from '#waypoint/tunnel-duplex.ts';
import { APP, hboneGate, listen } from '#waypoint/upstream/testing.ts';
import { connectHop } from '#ztunnel/hbone/client.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import { SETTINGS } from '#ztunnel/hbone/testing.ts';

/** What the process says of itself. */
export interface WaypointFigures {
  readonly heldBytes: number;
  readonly shedCount: number;
  readonly peakKib: number;
  readonly residentKib: number;
}

/** A waypoint in a process of its own, between callers that are the test and an application behind a real HBONE server. */
export interface LoneWaypoint extends AsyncDisposable {
  readonly child: ChildProcess;
  /** A caller's session: each has its own TCP connection. @param name service account of the caller, in namespace `shop` */
  readonly session: (name: string) => Promise<Connection>;
  /** A tunnel in a session; by default in one of its own, which ends with it. */
  readonly tunnel: (name: string, session?: Connection) => Promise<TunnelDuplex>;
  /** A TCP connection without anything on it. */
  readonly socket: () => Promise<Socket>;
  readonly figures: () => Promise<WaypointFigures>;
}

/** Callers keep little of what they do not read themselves. */
const CALLER_SETTINGS = { ...SETTINGS, streamWindowBytes: 64 * 1024 };
const PROGRAM = join(import.meta.dirname, 'programs', 'waypoint-alone.ts');

/** @param application answers; closed with the rest */
export async function openLoneWaypoint(application: Server, memory = '256Mi'): Promise<LoneWaypoint> {
  await using opened = new AsyncDisposableStack();
  const ca = opened.use(await temporaryAuthority());
  const app = opened.use(await listen(application));
  const gate = opened.use(await hboneGate(await ca.svid(APP), undefined, app.port));
  const child = spawn(process.execPath, [PROGRAM, ca.directory, String(gate.port), memory], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  opened.defer(async () => {
    if (child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const line = await lines.next();
    if (line.done === true) throw new Error('the waypoint has ended');
    return line.value;
  };
  const port = Number(await next());
  const identities = new Map<string, Promise<Awaited<ReturnType<typeof ca.svid>>>>();
  const svidOf = (name: string): ReturnType<typeof ca.svid> => {
    const known = identities.get(name) ?? ca.svid(identityOf(name));
    identities.set(name, known);
    return known;
  };
  const session = async (name: string): Promise<Connection> =>
    await connectHop({
      hop: { ip: '127.0.0.1', port },
      svid: await svidOf(name),
      expected: [WAYPOINT],
      dial: (to) => connect({ host: to.ip, port: to.port }),
      settings: CALLER_SETTINGS,
      timeoutMs: 20_000,
      onClose: () => undefined,
    });
  const all = opened.move();
  return {
    child,
    session,
    tunnel: async (name, given) => {
      const connection = given ?? (await session(name));
      const { stream, answer } = ask(connection, '10.96.0.1:80');
      const { status } = await answer;
      if (status !== '200') throw new Error(`CONNECT: ${status}`);
      const duplex = new TunnelDuplex(stream);
      duplex.on('error', () => undefined);
      if (given === undefined) duplex.once('close', () => connection.close('its tunnel is over'));
      return duplex;
    },
    socket: async () => {
      const socket = connect({ host: '127.0.0.1', port });
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      return socket;
    },
    figures: async () => {
      child.stdin.write('\n');
      return JSON.parse(await next()) as WaypointFigures;
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

function identityOf(name: string): Identity {
  return parseIdentity(`spiffe://cluster.local/ns/shop/sa/${name}`);
}
