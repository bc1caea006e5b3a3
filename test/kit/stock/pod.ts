import { randomBytes } from 'node:crypto';
import type {
  ClientHttp2Session,
  ClientHttp2Stream,
  IncomingHttpHeaders,
  ServerHttp2Session,
  ServerHttp2Stream,
} from 'node:http2';
import type net from 'node:net';
import { isIP } from 'node:net';
import type { Svid } from './ca.ts';
import { openHbone, serveHbone } from './hbone.ts';
import type { Journal } from './journal.ts';
import type { Kernel, NetnsHandle, TakenConnection } from './kernel.ts';
import { isAllowed } from './policy.ts';
import { canonicalIp, type Workload } from './resources.ts';
import type { Endpoint, Hop, Tables } from './tables.ts';

const PORT_HBONE = 15008;
const OWN_PORTS: readonly number[] = [15001, 15006, PORT_HBONE];

/** What all pods of the node share. */
export interface NodeParts {
  readonly kernel: Kernel;
  readonly tables: Tables;
  readonly journal: Journal;
  readonly certificate: (identity: string) => Promise<Svid>;
}

/** Who a pod is, as ZDS said. */
export interface PodInfo {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The proxy of one pod: fact sheet ambient-wire.md 1.6, 3.1 and 3.4, without waypoints and gateways. */
export class Pod {
  readonly info: PodInfo;
  readonly netns: NetnsHandle;
  readonly #parts: NodeParts;
  /** By destination and identities; a session is shared by all connections to it. */
  readonly #sessions = new Map<string, Promise<ClientHttp2Session>>();
  readonly #served = new Set<ServerHttp2Session>();
  #isDraining = false;

  constructor(info: PodInfo, netns: NetnsHandle, parts: NodeParts) {
    this.info = info;
    this.netns = netns;
    this.#parts = parts;
  }

  /** Serves a connection that was taken in the pod; whatever goes wrong ends it. */
  async serve(connection: TakenConnection): Promise<void> {
    const { journal } = this.#parts;
    const { kind, peer, original } = connection;
    const pod = `${this.info.namespace}/${this.info.name}`;
    journal({ event: 'taken', at: kind, pod, peer: print(peer), original: print(original) });
    try {
      const workload = await this.workload();
      if (kind === 'hbone') await this.#inbound(connection, workload);
      else if (kind === 'inbound') await this.#plaintext(connection, workload);
      else await this.#outbound(connection, workload);
    } catch (error) {
      journal({ event: 'dropped', pod, reason: error instanceof Error ? error.message : String(error) });
      connection.reset();
    }
  }

  /** Tells its peers that no further request is taken; what was asked is finished. */
  drain(): void {
    this.#isDraining = true;
    for (const session of this.#served) session.close();
  }

  /** Its workload, once it is known. */
  workload(): Promise<Workload> {
    const { name, namespace, serviceAccount } = this.info;
    const { tables } = this.#parts;
    return tables.waitFor(`${namespace}/${name}`, () =>
      [...tables.workloads.values()].find(
        (one) => one.name === name && one.namespace === namespace && one.serviceAccount === serviceAccount,
      ),
    );
  }

  /** A session to a workload, as a client of the pod's identity. */
  session(svid: Svid, ip: string, expected: readonly string[]): Promise<ClientHttp2Session> {
    const key = [svid.identity, ...expected, ip].join(' ');
    const known = this.#sessions.get(key);
    if (known !== undefined) return known;
    const opened = this.#open(svid, ip, expected);
    const forget = (): boolean => this.#sessions.delete(key);
    this.#sessions.set(key, opened);
    opened.then((session) => session.on('goaway', forget).on('close', forget), forget);
    return opened;
  }

  async #open(svid: Svid, ip: string, expected: readonly string[]): Promise<ClientHttp2Session> {
    const { kernel, journal } = this.#parts;
    const socket = await kernel.dial(this.netns, { ip, port: PORT_HBONE });
    return openHbone(socket, { svid, expected, journal, peer: ip });
  }

  async #inbound({ socket, peer, local }: TakenConnection, workload: Workload): Promise<void> {
    const svid = await this.#parts.certificate(identityOf(workload));
    serveHbone(socket, {
      svid,
      peer: print(peer),
      journal: this.#parts.journal,
      onSession: (session) => {
        this.#served.add(session);
        session.on('close', () => this.#served.delete(session));
        // It was on its way when the drain began.
        if (this.#isDraining) session.close();
      },
      onStream: (stream, headers, identity) => {
        const call = { stream, headers, identity, peer: peer.ip, local: local.ip, workload };
        this.#connect(call).catch((error: unknown) => stream.destroy(error as Error));
      },
    });
  }

  async #connect(call: InboundCall): Promise<void> {
    const { tables, kernel, journal } = this.#parts;
    const { stream, headers, identity, peer, local, workload } = call;
    const answer = (status: number, more: Readonly<Record<string, string>> = {}): void => {
      const options = { endStream: status !== 200, sendDate: false }; // The types do not know that there is a choice.
      stream.respond({ ':status': status, ...more }, options);
      journal({ event: 'response', end: 'server', status, headers: more });
    };
    const target = this.#target(headers, local, workload);
    if (typeof target === 'number') return answer(target);
    const current = tables.workloads.get(workload.uid) ?? workload;
    if (!isAllowed(tables.policies, current, { identity, destinationPort: target.port })) return answer(401);
    let application: net.Socket;
    try {
      application = await kernel.dial(this.netns, target, peer === target.ip ? undefined : peer);
    } catch {
      return answer(503);
    }
    answer(200, { baggage: baggageOf(workload) });
    splice(stream, application);
  }

  /** Where a CONNECT goes, or the status that refuses it. */
  #target(headers: IncomingHttpHeaders, local: string, workload: Workload): Endpoint | number {
    if (headers[':method'] !== 'CONNECT') return 400;
    const authority = /^(?:\[([0-9a-f:.]+)\]|([^:]+)):(\d+)$/i.exec(headers[':authority'] ?? '');
    if (authority === null) return 400;
    const [, v6, name = '', port] = authority;
    const host = v6 ?? name;
    if (isIP(host) !== 0 && canonicalIp(host) !== local) return 400;
    const target = isIP(host) === 0 ? this.#targetOf(host, Number(port), workload) : Number(port);
    return target === undefined || OWN_PORTS.includes(target) ? 503 : { ip: local, port: target };
  }

  #targetOf(hostname: string, port: number, workload: Workload): number | undefined {
    const { tables } = this.#parts;
    const services = [...tables.services.values()].filter((service) => service.hostname === hostname);
    const service = services.find(({ namespace }) => namespace === workload.namespace) ?? services[0];
    return service && tables.targetPort(service, workload, port);
  }

  async #plaintext({ socket, peer, original }: TakenConnection, workload: Workload): Promise<void> {
    const { tables, kernel } = this.#parts;
    if (OWN_PORTS.includes(original.port)) throw new Error('attempted recursive call to ourselves');
    if (!isAllowed(tables.policies, workload, { identity: undefined, destinationPort: original.port }))
      throw new Error('allow policies exist, but none allowed, or one denied');
    splice(socket, await kernel.dial(this.netns, original, peer.ip));
  }

  async #outbound(connection: TakenConnection, workload: Workload): Promise<void> {
    const { socket, original, peer } = connection;
    const hop = this.#parts.tables.nextHop(original);
    if (hop.kind === 'drop') throw new Error(hop.reason);
    if (hop.kind === 'tcp') return splice(socket, await this.#parts.kernel.dial(this.netns, hop.to));
    const stream = await this.#tunnel(hop, workload, peer);
    return splice(socket, stream);
  }

  async #tunnel(hop: Hop & { kind: 'hbone' }, source: Workload, peer: Endpoint): Promise<ClientHttp2Stream> {
    const svid = await this.#parts.certificate(identityOf(source));
    const expected = [identityOf(hop.workload), ...(hop.service?.subjectAltNames ?? [])];
    const session = await this.session(svid, hop.to.ip, expected);
    return this.request(session, connectHeaders(hop, source, peer), hop.to.ip);
  }

  /** Sends a request and waits for its 200. @throws Error with the status that came instead */
  async request(
    session: ClientHttp2Session,
    headers: Readonly<Record<string, string>>,
    peer: string,
  ): Promise<ClientHttp2Stream> {
    const { journal } = this.#parts;
    const stream = session.request({ ...headers }, { endStream: false });
    journal({ event: 'request', end: 'client', headers, peer });
    stream.on('error', () => undefined); // Its close says so.
    stream.on('close', () => journal({ event: 'stream closed', end: 'client', code: stream.rstCode ?? 0 }));
    const status = await new Promise<number>((resolve, reject) => {
      stream.on('response', ({ ':status': code = 0, ...rest }) => {
        journal({ event: 'response', end: 'client', status: code, headers: rest });
        resolve(code);
      });
      stream.on('close', () => reject(new Error('the stream ended without a response')));
    });
    if (status === 200) return stream;
    stream.close();
    throw new Error(`http status: ${status}`);
  }
}

interface InboundCall {
  readonly stream: ServerHttp2Stream;
  readonly headers: IncomingHttpHeaders;
  readonly identity: string;
  readonly peer: string;
  readonly local: string;
  readonly workload: Workload;
}

/** The SPIFFE ID of a workload. */
export function identityOf({ trustDomain, namespace, serviceAccount }: Workload): string {
  return `spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}`;
}

/** The recorded headers of a CONNECT, in their order. */
function connectHeaders(
  { to, service }: Hop & { kind: 'hbone' },
  source: Workload,
  peer: Endpoint,
): Readonly<Record<string, string>> {
  const host = service === undefined ? '' : `;host=${service.hostname}`;
  return {
    ':method': 'CONNECT',
    ':authority': print(to),
    baggage: baggageOf(source),
    forwarded: `for="${print(peer)}"${host}`,
    traceparent: `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-00`,
  };
}

function baggageOf(workload: Workload): string {
  return [
    ['k8s.cluster.name', workload.clusterId],
    ['k8s.namespace.name', workload.namespace],
    [`k8s.${workload.workloadType}.name`, workload.workloadName],
    ['service.name', workload.canonicalName],
    ['service.version', workload.canonicalRevision],
  ]
    .filter(([, value]) => value !== '')
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

/** Copies both ways, each direction ended by itself; what breaks on one side is swallowed, as a stock ztunnel does. */
function splice(a: net.Socket | ServerHttp2Stream, b: net.Socket | ClientHttp2Stream): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.on('error', () => to.end());
    from.on('close', () => to.end());
    from.pipe(to);
  }
}

function print({ ip, port }: Endpoint): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}
