import type { Exchange, HeaderList } from './exchange.ts';
import type { LiveCall } from './live-calls.ts';
import { ownerOf, REQUEST_BYTES, sizeOfHeaders } from './memory/costs.ts';
import type { Endpoint } from './model.ts';
import {
  type AuthorizedRequest,
  decideRequest,
  type ForwardDecision,
  type RequestDecision,
} from './route/decide-request.ts';
import { type ChosenFaults, chooseFaults } from './route/faults.ts';
import { isGrpc } from './route/grpc.ts';
import { mutateHeaders, settingAll } from './route/headers.ts';
import { sessionHeaders } from './route/session.ts';
import type { ServeDeps } from './serve-deps.ts';
import { timerMs } from './timer.ts';
import { abortReply, DENIED, replyTo } from './upstream/decided-reply.ts';
import { whyDenied } from './upstream/denial.ts';
import { isExtendedConnect, keyOfWebSocket, NO_ACCEPT } from './upstream/extended-connect.ts';
import { OVERLOADED } from './upstream/failure-reply.ts';
import type { ForwardPlan, TryFault } from './upstream/forward-plan.ts';
import { Forwarding } from './upstream/forwarding.ts';
import { formatReply, type LocalReply, sendReply } from './upstream/local-reply.ts';
import { type BodyCopy, RequestBody } from './upstream/request-body.ts';
import { type PreparedHeaders, prepareHeaders, withClientCert } from './upstream/request-headers.ts';
import { RequestLog } from './upstream/request-log.ts';
import { textOf } from './upstream/target.ts';

/** Names of the faults that an answer comes from, or was slowed by. */
const FAULT_HEADER = 'x-tulle-fault';

/**
 * Answers one request: decides with the newest configuration, and does what was decided. The exchange is its own from now on; its
 * record is given when it is over, however it ends.
 */
export function serveRequest(exchange: Exchange, deps: ServeDeps): void {
  new Service(exchange, deps).start();
}

class Service implements LiveCall {
  readonly #exchange: Exchange;
  readonly #deps: ServeDeps;
  readonly #log: RequestLog;
  readonly #isGrpc: boolean;
  readonly #prepared: PreparedHeaders;
  #forwarding: Forwarding | undefined;
  #delay: NodeJS.Timeout | undefined;
  #endFaults: (() => void) | undefined;
  /** What policies saw of it, and let pass. */
  #asked: AuthorizedRequest | undefined;
  /** Of faults, so far. */
  readonly #faultNames: string[] = [];

  constructor(exchange: Exchange, deps: ServeDeps) {
    this.#exchange = exchange;
    this.#deps = deps;
    this.#isGrpc = isGrpc(exchange.head.headers);
    this.#prepared = prepareHeaders(exchange.head, exchange.downstream.caller);
    const log = new RequestLog(exchange, deps.record);
    log.isGrpc = this.#isGrpc;
    log.requestId = this.#prepared.requestId;
    log.userAgent = this.#prepared.userAgent;
    log.traceparent = this.#prepared.traceparent;
    this.#log = log;
  }

  start(): void {
    this.#exchange.onClose = (isComplete) => this.#onClose(isComplete);
    this.#deps.live.add(this);
    this.#deps.ledger.note(sizeOfHeaders(this.#exchange.head.headers));
    const decision = this.#decide();
    if (!('route' in decision)) {
      this.#act(decision);
      return;
    }
    const { route, faults, path, query } = decision;
    this.#log.route = route.name;
    this.#log.origin = route.origin;
    this.#log.path = path + query;
    if (faults.faults.length > 0) this.#endFaults = this.#deps.faults.begin(faults.faults);
    this.#mark(faults);
    if (faults.delayMs === 0) this.#act(decision);
    else this.#delay = setTimeout(() => this.#act(decision), timerMs(faults.delayMs));
  }

  get owner(): string {
    return ownerOf(this.#exchange.downstream.caller);
  }

  held(): number {
    const { head } = this.#exchange;
    const size = REQUEST_BYTES + sizeOfHeaders(head.headers) + head.target.length;
    return size + this.#exchange.held() + (this.#forwarding?.held() ?? 0);
  }

  shed(why: string): void {
    this.#end(OVERLOADED, why, 'OM');
  }

  recheck(): void {
    const asked = this.#asked;
    if (asked === undefined) return;
    const frontend = this.#deps.config().frontends.named(asked.frontend.name) ?? asked.frontend;
    const denied = frontend.refuse ?? this.#whyDenied({ ...asked, frontend });
    if (denied !== undefined) this.#end(DENIED, `no longer allowed: ${denied}`, 'LR');
  }

  /** Answers so if there is no answer yet, else resets. */
  #end(reply: LocalReply, why: string, flag: 'LR' | 'OM'): void {
    if (this.#forwarding !== undefined) this.#forwarding.cut(reply, why, flag);
    else if (this.#delay !== undefined) {
      this.#stopDelay();
      if (flag === 'OM') this.#log.flag(flag);
      this.#reply(reply, why);
    }
  }

  #whyDenied(request: AuthorizedRequest): string | undefined {
    const { caller, authority } = this.#exchange.downstream;
    return whyDenied(this.#deps.authorize(request.frontend, caller, request, authority));
  }

  #stopDelay(): void {
    clearTimeout(this.#delay);
    this.#delay = undefined;
  }

  #decide(): RequestDecision {
    const { downstream, head } = this.#exchange;
    const { caller } = downstream;
    const { config, weights, random, faults } = this.#deps;
    return decideRequest({
      config: config(),
      frontend: downstream.frontend,
      caller,
      head,
      nowMs: Date.now(),
      draw: random,
      weights,
      activeFaults: faults.active,
      authorize: (request) => {
        this.#log.frontend = request.frontend;
        const denied = this.#whyDenied(request);
        if (denied === undefined) this.#asked = request;
        return denied;
      },
    });
  }

  #act(decision: RequestDecision): void {
    this.#delay = undefined;
    if (decision.kind === 'forward') {
      this.#forward(decision);
      return;
    }
    if (decision.kind === 'not-found') this.#log.path = decision.path + decision.query;
    if (decision.kind === 'no-cluster') this.#log.cluster = decision.backend.cluster;
    const { reply, details, flag } = replyTo(decision);
    if (flag !== undefined) this.#log.flag(flag);
    this.#reply(reply, details);
  }

  #forward(decision: ForwardDecision): void {
    const { cluster, action } = decision;
    this.#log.sentTo(cluster);
    const request = this.#upstreamRequest(decision);
    const copies = this.#mirror(decision, request);
    const body = new RequestBody(this.#exchange.body, copies, () => this.#forwarding?.stop());
    if (action.retry.attempts === 0) body.forget();
    const plan: ForwardPlan = {
      cluster,
      newest: () => this.#deps.config().clusters.get(cluster.name) ?? cluster,
      retry: action.retry,
      timeoutMs: action.timeoutMs,
      hashKey: decision.hashKey,
      sticksTo: decision.session?.endpoint,
      requestOf: (attempt) => ({
        ...request,
        headers: [...request.headers, 'x-envoy-attempt-count', String(attempt)],
      }),
      authority: this.#exchange.downstream.authority,
      faultOfTry: () => this.#faultOfTry(decision),
      answer: (_status, headers, endpoint) => this.#answerHeaders(decision, headers, endpoint),
      reply: (reply) => this.#replyInstead(decision, reply),
      responseKbps: decision.faults.responseKbps,
    };
    this.#forwarding = new Forwarding(this.#deps, { exchange: this.#exchange, body, plan, log: this.#log });
    this.#forwarding.start();
  }

  #upstreamRequest(decision: ForwardDecision): ReturnType<ForwardPlan['requestOf']> {
    const { head, downstream, body } = this.#exchange;
    const { upstreamTarget, upstreamAuthority, requestHeaders, path, query } = decision;
    const identity = this.#deps.identity();
    const self = identity === undefined ? undefined : textOf(identity);
    const mutated = mutateHeaders(this.#prepared.headers, requestHeaders);
    const headers = withClientCert(mutated, downstream.caller, self);
    if (upstreamTarget !== path + query) headers.push('x-envoy-original-path', path + query);
    if (upstreamAuthority !== head.authority) headers.push('x-envoy-original-host', head.authority);
    const isExtended = isExtendedConnect(head);
    if (isExtended) headers.push(...keyOfWebSocket(head));
    return {
      method: isExtended ? 'GET' : head.method,
      target: upstreamTarget,
      authority: upstreamAuthority,
      scheme: decision.cluster.tls === undefined ? 'http' : 'https',
      headers,
      hasBody: body !== undefined,
      ...(head.upgrade !== undefined && { upgrade: head.upgrade }),
    };
  }

  #mirror(
    { mirrors, hashKey }: ForwardDecision,
    request: ReturnType<ForwardPlan['requestOf']>,
  ): readonly BodyCopy[] {
    if (mirrors.length === 0 || request.upgrade !== undefined) return [];
    const { downstream, head } = this.#exchange;
    const { caller, authority } = downstream;
    const context = { caller, authority, hashKey, downstream: head };
    return mirrors.flatMap((cluster) => this.#deps.mirrors.send(cluster, request, context) ?? []);
  }

  /** Drawn anew for each try: what retries save is seen. */
  #faultOfTry({ attemptFaults }: ForwardDecision): TryFault | undefined {
    if (attemptFaults.length === 0) return undefined;
    const chosen = chooseFaults(attemptFaults, {
      where: 'upstream',
      headers: this.#exchange.head.headers,
      authority: this.#exchange.head.authority,
      caller: this.#exchange.downstream.caller,
      nowMs: Date.now(),
      draw: this.#deps.random,
      active: this.#deps.faults.active,
    });
    if (chosen.faults.length === 0) return undefined;
    this.#mark(chosen);
    return {
      delayMs: chosen.delayMs,
      abort: chosen.abort && abortReply(chosen.abort),
      responseKbps: chosen.responseKbps,
      release: this.#deps.faults.begin(chosen.faults),
    };
  }

  /** Whoever looks sees that it was on purpose. */
  #mark({ names, delayMs }: ChosenFaults): void {
    for (const name of names) {
      this.#log.fault(name);
      if (!this.#faultNames.includes(name)) this.#faultNames.push(name);
    }
    if (delayMs > 0) this.#log.flag('DI');
  }

  #answerHeaders(decision: ForwardDecision, headers: HeaderList, endpoint: Endpoint): HeaderList {
    const { action, session, path, corsHeaders } = decision;
    const own: string[] = ['x-envoy-upstream-service-time', String(Math.round(this.#log.upstreamMs ?? 0))];
    if (this.#faultNames.length > 0) own.push(FAULT_HEADER, this.#faultNames.join(','));
    const mutations = [...decision.responseHeaders, settingAll(own), settingAll(corsHeaders)];
    if (isExtendedConnect(this.#exchange.head)) mutations.push(NO_ACCEPT);
    const mutated = mutateHeaders(headers, mutations);
    if (action.session === undefined) return mutated;
    return [...mutated, ...sessionHeaders(action.session, session, { endpoint, path, nowMs: Date.now() })];
  }

  /** Answers where the application does not: a route changes such answers, too, as in Envoy. */
  #replyInstead({ responseHeaders, corsHeaders }: ForwardDecision, reply: LocalReply): void {
    const headers = mutateHeaders(reply.headers ?? [], [...responseHeaders, settingAll(corsHeaders)]);
    this.#reply({ ...reply, headers }, this.#log.details);
  }

  /** Answers in the waypoint's own name. */
  #reply(reply: LocalReply, details: string): void {
    const headers = [...(reply.headers ?? [])];
    if (this.#faultNames.length > 0) headers.push(FAULT_HEADER, this.#faultNames.join(','));
    const formatted = formatReply({ ...reply, headers }, this.#isGrpc);
    this.#log.status = formatted.status;
    this.#log.details = details;
    this.#log.readGrpcStatus(formatted.headers);
    sendReply(this.#exchange, formatted);
  }

  #onClose(isComplete: boolean): void {
    this.#deps.live.delete(this);
    this.#stopDelay();
    this.#endFaults?.();
    if (!isComplete && !this.#log.isOver) this.#onGone();
    this.#log.finish();
  }

  /** The client has left, or has been answered by `downstream/` for what it did. */
  #onGone(): void {
    const { failure } = this.#exchange;
    this.#forwarding?.stop();
    this.#log.flag(failure?.flag ?? 'DC');
    this.#log.details = failure?.details ?? 'the client left';
    if (failure !== undefined && failure.status !== 0) this.#log.status = failure.status;
  }
}
