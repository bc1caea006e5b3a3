import type { GrpcCall, GrpcChannel } from './grpc.ts';
import type { Journal } from './journal.ts';
import { ADS_REQUESTS, type RecordedRequest } from './recording.ts';
import { callMetadata, type Settings } from './settings.ts';
import type { Tables } from './tables.ts';
import { bytesField, Message } from './wire.ts';

const PATH = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources';

export interface AdsOptions {
  readonly settings: Settings;
  readonly tables: Tables;
  readonly journal: Journal;
  /** A response has been taken in and answered. */
  readonly onResponse: (type: string) => void;
}

/** Delta ADS as a stock ztunnel was recorded to speak it, with this node's names in place of the recorded ones. */
export class AdsClient {
  readonly #options: AdsOptions;
  /** Name to version by type: what a reconnect tells. */
  readonly #held = new Map<string, Map<string, string>>();
  /** Names that are to be rejected, with the reason. */
  #rejected: ReadonlyMap<string, string> = new Map();

  constructor(options: AdsOptions) {
    this.#options = options;
  }

  /** From now on these resources are rejected when they come. */
  reject(reasons: ReadonlyMap<string, string>): void {
    this.#rejected = reasons;
  }

  /** Opens a stream and asks for both types. Its status comes when it ends. */
  open(channel: GrpcChannel): GrpcCall {
    const { settings, journal } = this.#options;
    const metadata = callMetadata(settings, settings.token());
    journal({ event: 'ads stream', metadata });
    const call = channel.call(PATH, metadata, (bytes) => this.#receive(call, bytes));
    for (const recorded of ADS_REQUESTS.slice(0, 2)) {
      const initialResourceVersions = Object.fromEntries(this.#held.get(recorded.typeUrl) ?? []);
      this.#send(call, { ...recorded, node: describeNode(settings), initialResourceVersions });
    }
    return call;
  }

  #receive(call: GrpcCall, bytes: Buffer): void {
    const response = new Message(bytes);
    const [type, nonce] = [response.text(4), response.text(5)];
    const held = this.#held.get(type) ?? new Map<string, string>();
    this.#held.set(type, held);
    const resources = response.messages(2).map((resource) => ({
      name: resource.text(3),
      version: resource.text(1),
      any: resource.message(2),
    }));
    const errors = resources.flatMap(({ name, version, any }) => {
      const reason = this.#rejected.get(name) ?? this.#take(type, name, any);
      if (reason === undefined) held.set(name, version);
      return reason === undefined ? [] : [`${name}: ${reason}`];
    });
    for (const name of response.texts(6)) {
      this.#options.tables.remove(type, name);
      held.delete(name);
    }
    this.#options.journal({
      event: 'ads response',
      type,
      nonce,
      resources: resources.map(({ name, version }) => ({ name, version })),
      removed: response.texts(6),
      errors,
    });
    const [ack] = ADS_REQUESTS.slice(2).filter(({ typeUrl }) => typeUrl === type);
    if (ack === undefined) throw new Error(`a response of type ${type}, which nobody asked for`);
    const errorDetail = errors.length === 0 ? null : { message: errors.join('; ') };
    this.#send(call, { ...ack, responseNonce: nonce, errorDetail });
    this.#options.onResponse(type);
  }

  #take(type: string, name: string, any: Message | undefined): string | undefined {
    if (any?.text(1) !== type) return `is a ${any?.text(1) ?? 'nothing'}`;
    try {
      this.#options.tables.put(type, name, any.bytes(2)[0] ?? Buffer.alloc(0));
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  #send(call: GrpcCall, request: RecordedRequest): void {
    this.#options.journal({ event: 'ads request', request });
    call.send(encodeAdsRequest(request));
  }
}

function describeNode({ instanceIp, podName, podNamespace, nodeName }: Settings): RecordedRequest['node'] {
  const texts = { INSTANCE_IPS: instanceIp, NAME: podName, NAMESPACE: podNamespace, NODE_NAME: nodeName };
  const fields = Object.entries(texts).map(([key, stringValue]) => [key, { stringValue }] as const);
  return {
    id: `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    cluster: '',
    metadata: { fields: Object.fromEntries(fields) },
  };
}

/** The bytes of a request; fields that are empty are left out, as proto3 has it. */
export function encodeAdsRequest(request: RecordedRequest): Buffer {
  const { node, typeUrl, responseNonce, errorDetail } = request;
  const texts = (number: number, values: readonly string[]): Buffer[] =>
    values.filter((value) => value !== '').map((value) => bytesField(number, value));
  return Buffer.concat([
    ...(node === null ? [] : [bytesField(1, encodeNode(node))]),
    ...texts(2, [typeUrl]),
    ...texts(3, request.resourceNamesSubscribe),
    ...texts(4, request.resourceNamesUnsubscribe),
    ...Object.entries(request.initialResourceVersions).map((entry) => bytesField(5, encodeEntry(entry))),
    ...texts(6, [responseNonce]),
    ...(errorDetail === null ? [] : [bytesField(7, bytesField(2, errorDetail.message))]),
  ]);
}

function encodeNode(node: NonNullable<RecordedRequest['node']>): Buffer {
  return Buffer.concat([bytesField(1, node.id), bytesField(3, encodeStruct(node.metadata.fields))]);
}

/** A google.protobuf.Struct of texts. */
export function encodeStruct(fields: Readonly<Record<string, { readonly stringValue: string }>>): Buffer {
  return Buffer.concat(
    Object.entries(fields).map(([key, { stringValue }]) =>
      bytesField(1, Buffer.concat([bytesField(1, key), bytesField(2, bytesField(3, stringValue))])),
    ),
  );
}

function encodeEntry([key, value]: readonly [string, string]): Buffer {
  return Buffer.concat([bytesField(1, key), bytesField(2, value)]);
}
