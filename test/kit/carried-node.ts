import type { Ip } from '#api/address.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import type { AccessRecord } from '#ztunnel/access-log.ts';
import { Carrier } from '#ztunnel/carrier.ts';
import type { CarriedConnection } from '#ztunnel/hand-over/carried.ts';
import { Parked } from '#ztunnel/hand-over/parked.ts';
import { attachSocket } from '#ztunnel/hbone/attach-socket.ts';
import { ofRestart } from '#ztunnel/resume/inbound-tunnel.ts';
import type { ShedReport } from '#ztunnel/shedding.ts';
import type { FromWorker, ToWorker, WorkerConfig } from '#ztunnel/worker-messages.ts';
import { eventually } from './eventually.ts';
import type { LoopbackPods } from './loopback-pods.ts';

/** A request without its number: which is given here. */
type Request = ToWorker extends infer Message
  ? Message extends { readonly request: number }
    ? Omit<Message, 'request'>
    : never
  : never;

type Done = FromWorker & { readonly kind: 'done' };

/** A byte worker without its thread, serving pods without namespaces, and what it has said. */
export class CarriedNode {
  readonly records: AccessRecord[] = [];
  readonly needed: string[] = [];
  /** Gets what it says of connections that change hands, instead of what a main thread would do. */
  onOther: ((message: FromWorker) => void) | undefined;
  /** What has become of connections that changed hands: `outbound-tunnel handed_over`. */
  readonly outcomes: string[] = [];
  #successor: CarriedNode | undefined;
  readonly parked: Parked = new Parked({
    patienceMs: 3_000,
    onUnclaimed: ({ kind, sockets: [socket] }) => {
      this.outcomes.push(`${kind} unclaimed`);
      if (socket !== undefined) attachSocket(socket).abort();
    },
  });
  readonly #answers = new Map<number, (message: Done) => void>();
  readonly #carrier: Carrier;
  readonly #pods: LoopbackPods;
  /** Their places stand for descriptors of namespaces. */
  readonly #addresses: Ip[] = [];
  readonly #onShed: (reports: readonly ShedReport[]) => void;
  #requests = 0;

  constructor(
    pods: LoopbackPods,
    node: string,
    settings: Partial<WorkerConfig> = {},
    onShed: (reports: readonly ShedReport[]) => void = () => undefined,
  ) {
    this.#pods = pods;
    this.#onShed = onShed;
    this.#carrier = new Carrier({
      config: { ...workerConfig(node), ...settings },
      openSockets: (netnsFd) => pods.socketsOf(this.#addresses[netnsFd] ?? ''),
      send: (message) => this.#onMessage(message),
    });
  }

  async tell(message: ToWorker): Promise<void> {
    await this.#carrier.handle(message);
  }

  async request(message: Request): Promise<Done> {
    const request = this.#requests++;
    const { promise, resolve } = Promise.withResolvers<Done>();
    this.#answers.set(request, resolve);
    await this.tell({ ...message, request } as ToWorker);
    return await promise;
  }

  /** Applies resources, policies first. */
  async learn(...resources: readonly Resource[]): Promise<void> {
    const policies = resources.filter(({ kind }) => kind === 'authorization');
    const addresses = resources.filter(({ kind }) => kind !== 'authorization');
    await this.tell({ kind: 'tables', update: { type: AUTHORIZATION_TYPE, updated: policies, removed: [] } });
    await this.tell({ kind: 'tables', update: { type: ADDRESS_TYPE, updated: addresses, removed: [] } });
  }

  /** Serves the pod that a workload is. */
  async serve({ uid, name, namespace, serviceAccount, addresses }: Workload): Promise<void> {
    const [ip = ''] = addresses;
    const netnsFd = this.#addresses.push(ip) - 1;
    const pod = { uid, name, namespace, serviceAccount };
    const { error } = await this.request({ kind: 'add-pod', pod, netnsFd });
    if (error !== undefined) throw new Error(error);
    await eventually('its listeners', () =>
      [15001, 15006, 15008].every((port) => this.#pods.portOf({ ip, port }) > 1),
    );
  }

  /** Records of connections that are over. */
  ended(): readonly AccessRecord[] {
    return this.records.filter(({ event }) => event === 'closed' || event === 'failed');
  }

  /** The first of them. */
  async record(): Promise<AccessRecord> {
    return await eventually('a record of the end', () => this.ended()[0]);
  }

  #onMessage(message: FromWorker): void {
    if (message.kind === 'records') this.records.push(...message.records);
    else if (message.kind === 'shed') this.#onShed(message.reports);
    else if (message.kind === 'need-svid') this.needed.push(message.identity);
    else if (message.kind === 'done') this.#answers.get(message.request)?.(message);
    else if (this.onOther !== undefined) this.onOther(message);
    else this.#onHandOver(message).catch(fail);
  }

  /** What a main thread does. */
  async #onHandOver(message: FromWorker): Promise<void> {
    if (message.kind === 'hand-over') this.outcomes.push(`${message.of} ${message.outcome}`);
    else if (message.kind === 'park' && this.#successor !== undefined)
      this.#successor.take(message.connection);
    else if (message.kind === 'park') this.parked.park(message.connection);
    else if (message.kind === 'claim') {
      const answer = await this.parked.claim(message.id, message.claimant);
      await this.tell({ kind: 'claimed', claim: message.claim, answer });
    } else if (message.kind === 'carried') {
      const { id } = message.connection;
      const outcome = this.#successor === undefined ? 'kept' : 'taken';
      this.#successor?.take(message.connection);
      await this.tell({ kind: 'settled', id, outcome });
    }
  }

  /** Drains, and gives up what there is to a successor, if there is one. */
  async retire(successor?: CarriedNode): Promise<void> {
    this.#successor = successor;
    if (successor !== undefined) for (const connection of this.parked.move()) successor.take(connection);
    await this.request({ kind: 'drain', deadlineMs: 20_000, handOver: true });
  }

  /** Takes what another node has given up. */
  take(connection: CarriedConnection): void {
    if (connection.kind === 'inbound-tunnel') this.parked.park(ofRestart(connection));
    else this.tell({ kind: 'adopt', connection }).catch(fail);
  }
}

function fail(error: unknown): never {
  throw error;
}

/** The settings of a byte worker. */
export function workerConfig(node: string): WorkerConfig {
  return {
    index: 0,
    node,
    network: '',
    clusterId: 'Kubernetes',
    clusterDomain: 'cluster.local',
    missingPolicy: 'deny',
    fabricCidrs: [],
    originalSource: true,
    hbone: {
      streamWindowBytes: 4_194_304,
      connectionWindowBytes: 16_777_216,
      frameBytes: 1_048_576,
      maxStreamsPerConnection: 100,
      poolIdleMs: 300_000,
      pingIntervalMs: 10_000,
      pingTimeoutMs: 20_000,
    },
  };
}
