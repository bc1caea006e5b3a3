import { formatHostPort } from '#api/address.ts';
import type { Exchange, HeaderList } from '../exchange.ts';
import type { Cluster, Endpoint, Frontend, Origin } from '../model.ts';
import type { RequestRecord, ResponseFlag, RetrySkipped } from '../request-record.ts';

/** What is learnt of a request on its way, until it is over: then it becomes its record. */
export class RequestLog {
  readonly #startMs: number = Date.now();
  readonly #start: number = performance.now();
  readonly #exchange: Exchange;
  readonly #record: (record: RequestRecord) => void;
  #isOver = false;
  readonly #flags: ResponseFlag[] = [];
  readonly #faults: string[] = [];
  frontend: Frontend;
  path: string;
  requestId = '';
  userAgent = '';
  traceparent = '';
  isGrpc = false;
  status = 0;
  grpcStatus: number | undefined;
  details = '';
  route = '';
  origin: Origin | undefined;
  cluster = '';
  backend = '';
  endpoint: Endpoint | undefined;
  attempts = 0;
  upstreamMs: number | undefined;
  retrySkipped: RetrySkipped | undefined;

  constructor(exchange: Exchange, record: (record: RequestRecord) => void) {
    this.#exchange = exchange;
    this.#record = record;
    this.frontend = exchange.downstream.frontend;
    this.path = exchange.head.target;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  flag(flag: ResponseFlag): void {
    if (!this.#flags.includes(flag)) this.#flags.push(flag);
  }

  fault(name: string): void {
    if (!this.#faults.includes(name)) this.#faults.push(name);
  }

  sentTo(cluster: Cluster): void {
    this.cluster = cluster.name;
    this.backend = cluster.backend;
  }

  /** Of trailers, or of headers of an answer that has no others. */
  readGrpcStatus(headers: HeaderList): void {
    for (let index = 0; index < headers.length; index += 2) {
      if (headers[index] !== 'grpc-status') continue;
      const value = headers[index + 1] ?? '';
      if (/^\d{1,3}$/.test(value)) this.grpcStatus = Number(value);
    }
  }

  /** The request is over; once. */
  finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#record(this.snapshot());
  }

  /** Another process has it: no record is made here. */
  leave(): void {
    this.#isOver = true;
  }

  /** Its record, if it were over now. */
  snapshot(): RequestRecord {
    const { downstream, head } = this.#exchange;
    return {
      startMs: this.#startMs,
      durationMs: performance.now() - this.#start,
      caller: downstream.caller,
      frontend: this.frontend,
      destination: formatHostPort(downstream.authority),
      protocol: head.protocol,
      request: {
        method: head.method,
        authority: head.authority,
        path: this.path,
        id: this.requestId,
        userAgent: this.userAgent,
        traceparent: this.traceparent,
        isGrpc: this.isGrpc,
      },
      status: this.status,
      ...(this.grpcStatus !== undefined && { grpcStatus: this.grpcStatus }),
      flags: this.#flags,
      details: this.details,
      bytesReceived: this.#exchange.bytesReceived(),
      bytesSent: this.#exchange.bytesSent(),
      route: this.route,
      origin: this.origin,
      cluster: this.cluster,
      backend: this.backend,
      endpoint: this.endpoint,
      attempts: this.attempts,
      upstreamMs: this.upstreamMs,
      faults: this.#faults,
      ...(this.retrySkipped !== undefined && { retrySkipped: this.retrySkipped }),
    };
  }
}
