import type { ByteTunnel, Exchange, HeaderList } from '../exchange.ts';
import type { Endpoint } from '../model.ts';
import { carrierOf } from '../relay.ts';
import { firstValue } from '../route/headers.ts';
import { type AttemptOutcome, decideRetry, parseRetryAfter } from '../route/retry.ts';
import { timerMs } from '../timer.ts';
import type { Attempt, AttemptFailure, AttemptHandlers } from './attempt.ts';
import type { Balancer } from './balance.ts';
import { flagOfFailure, NO_ENDPOINT, outcomeOf, replyToFailure, TIMED_OUT } from './failure-reply.ts';
import type { ForwardPlan, TryFault } from './forward-plan.ts';
import { LegTunnel } from './leg-tunnel.ts';
import type { LocalReply } from './local-reply.ts';
import { RateLimit } from './rate-limit.ts';
import type { RequestBody } from './request-body.ts';
import type { RequestLog } from './request-log.ts';
import { addressOf, keyOfEndpoint, protocolOf } from './target.ts';
import { joinTunnels } from './tunnel-splice.ts';
import { Unwanted } from './unwanted.ts';
import type { Upstream } from './upstream.ts';

export interface ForwardDeps {
  readonly upstream: Upstream;
  readonly balancer: Balancer;
  /** From 0 up to 1. */
  readonly random: () => number;
}

/** One request on its way: try after try, until one answers, or it is time to give up. */
export class Forwarding {
  readonly #deps: ForwardDeps;
  readonly #exchange: Exchange;
  readonly #body: RequestBody;
  readonly #plan: ForwardPlan;
  readonly #log: RequestLog;
  readonly #tried = new Set<string>();
  readonly #endRequest: () => void;
  #endTry: (() => void) | undefined;
  #endRetry: (() => void) | undefined;
  #endFault: (() => void) | undefined;
  #attempt: Attempt | undefined;
  /** Of the whole request, of this try, and until the next. */
  #timer: NodeJS.Timeout | undefined;
  #tryTimer: NodeJS.Timeout | undefined;
  #pauseTimer: NodeJS.Timeout | undefined;
  #hasResponded = false;
  #isOver = false;
  /** The last try met a connection that was being closed: others that have been idle may be no better. */
  #isFreshOnly = false;
  /** Once it is an upgraded connection. */
  #upgraded: JoinedTunnel | undefined;
  #slow: RateLimit | undefined;
  #kbps: number;
  readonly #startedAt: number = performance.now();

  constructor(
    deps: ForwardDeps,
    options: {
      readonly exchange: Exchange;
      readonly body: RequestBody;
      readonly plan: ForwardPlan;
      readonly log: RequestLog;
    },
  ) {
    this.#deps = deps;
    this.#exchange = options.exchange;
    this.#body = options.body;
    this.#plan = options.plan;
    this.#log = options.log;
    this.#kbps = options.plan.responseKbps ?? Number.POSITIVE_INFINITY;
    this.#endRequest = deps.balancer.beginRequest(options.plan.cluster);
  }

  /** Sends it. */
  start(): void {
    const { timeoutMs } = this.#plan;
    if (timeoutMs > 0) this.#timer = setTimeout(() => this.#timeOut(), timerMs(timeoutMs));
    this.#exchange.onDrain = () => (this.#slow === undefined ? this.#attempt?.resume() : this.#slow.resume());
    this.#begin();
  }

  /** The client has gone, or there is an answer from elsewhere: lets go of everything. */
  stop(): void {
    if (this.#isOver) return;
    const attempt = this.#attempt;
    this.#settle();
    attempt?.abort();
  }

  /** It must not go on, for a reason of our own: answers so if there is no answer yet, else resets. */
  cut(reply: LocalReply, why: string, flag: 'LR' | 'OM' = 'LR'): void {
    this.#upgraded?.cut(why, flag);
    if (this.#isOver) return;
    if (flag === 'OM') this.#log.flag(flag);
    if (!this.#hasResponded) {
      this.#giveUp(reply, why);
      return;
    }
    const attempt = this.#attempt;
    this.#log.flag(flag);
    this.#log.details = why;
    this.#break();
    attempt?.abort();
  }

  /** Bytes of memory in which bodies wait on the way to the application, and from there. */
  held(): number {
    const upgraded = this.#upgraded?.held() ?? 0;
    return upgraded + (this.#attempt?.held() ?? 0) + this.#body.held() + (this.#slow?.held() ?? 0);
  }

  #begin(): void {
    const log = this.#log;
    const endpoint = this.#pick();
    if (endpoint === undefined) {
      log.flag('UH');
      this.#giveUp(NO_ENDPOINT, 'no endpoint is healthy');
      return;
    }
    log.endpoint = endpoint;
    log.attempts += 1;
    this.#tried.add(keyOfEndpoint(endpoint));
    this.#startTryTimer();
    const fault = this.#plan.faultOfTry();
    if (fault === undefined) this.#send(endpoint);
    else this.#suffer(fault, endpoint);
  }

  #startTryTimer(): void {
    const { perTryTimeoutMs } = this.#plan.retry;
    if (perTryTimeoutMs > 0)
      this.#tryTimer = setTimeout(() => this.#onTryTimeout(), timerMs(perTryTimeoutMs));
  }

  #suffer(fault: TryFault, endpoint: Endpoint): void {
    this.#endFault = fault.release;
    this.#kbps = Math.min(this.#kbps, fault.responseKbps ?? Number.POSITIVE_INFINITY);
    const act = (): void => {
      if (fault.abort === undefined) this.#send(endpoint);
      else this.#onInjected(fault.abort);
    };
    if (fault.delayMs === 0) act();
    else this.#pauseTimer = setTimeout(act, timerMs(fault.delayMs));
  }

  #pick(): Endpoint | undefined {
    const { newest, hashKey, sticksTo } = this.#plan;
    if (sticksTo !== undefined && this.#tried.size === 0) return sticksTo;
    return this.#deps.balancer.pick(newest(), { hashKey, exclude: this.#tried });
  }

  #send(endpoint: Endpoint): void {
    const { cluster, authority, requestOf } = this.#plan;
    const { head, downstream } = this.#exchange;
    const { caller } = downstream;
    const wanted = requestOf(this.#log.attempts);
    const request = this.#isFreshOnly ? { ...wanted, isFreshOnly: true } : wanted;
    this.#endTry = this.#deps.balancer.begin(cluster, endpoint);
    const target = { caller, endpoint, address: addressOf(endpoint, authority), cluster };
    let attempt: Attempt | undefined;
    const handlers = this.#handlers(endpoint, () => attempt?.abort());
    attempt = this.#deps.upstream.send(protocolOf(cluster, request, head), target, request, handlers);
    this.#attempt = attempt;
    this.#body.sendTo(attempt);
  }

  #handlers(endpoint: Endpoint, abort: () => void): AttemptHandlers {
    const startedAt = performance.now();
    /** An answer that is read only to free its connection. */
    let unwanted: Unwanted | undefined;
    return {
      onInform: (status, headers) => {
        if (!this.#isOver) this.#exchange.inform(status, headers);
      },
      onHead: (status, headers) => {
        this.#log.upstreamMs = performance.now() - startedAt;
        if (this.#isRetried(responseOf(status, headers))) unwanted = new Unwanted(abort);
        else this.#respond(status, headers, endpoint);
      },
      onData: (chunk) => {
        if (unwanted === undefined) this.#write(chunk);
        else unwanted.take(chunk.length);
      },
      onEnd: (trailers) => {
        if (unwanted === undefined) this.#end(trailers);
        else unwanted.over();
      },
      onUpgrade: (status, headers, tunnel) => this.#upgrade(status, headers, { tunnel, endpoint }),
      onFailure: (failure) => {
        if (unwanted === undefined) this.#onFailure(failure);
        else unwanted.over();
      },
      onDrain: () => this.#body.resume(),
    };
  }

  #onInjected(reply: LocalReply): void {
    this.#log.flag('FI');
    if (this.#isRetried({ kind: 'response', status: reply.status })) return;
    this.#giveUp(reply, 'fault injected');
  }

  #onFailure(failure: AttemptFailure): void {
    if (this.#isOver) return;
    this.#attempt = undefined;
    this.#isFreshOnly = failure.kind === 'stale';
    if (this.#hasResponded) {
      this.#log.flag(flagOfFailure(failure));
      this.#log.details = `the answer was cut short: ${failure.reason}`;
      this.#break();
      return;
    }
    if (this.#isRetried(outcomeOf(failure))) return;
    const { reply, flag } = replyToFailure(failure, this.#log.attempts > 1);
    this.#log.flag(flag);
    this.#giveUp(reply, failure.reason);
  }

  #onTryTimeout(): void {
    if (this.#isOver || this.#hasResponded) return;
    const attempt = this.#attempt;
    this.#attempt = undefined;
    attempt?.abort();
    clearTimeout(this.#pauseTimer);
    if (this.#isRetried({ kind: 'attempt-timeout' })) return;
    this.#log.flag('UT');
    this.#giveUp(TIMED_OUT, 'the last try took too long');
  }

  #timeOut(): void {
    if (this.#isOver) return;
    this.#log.flag('UT');
    if (!this.#hasResponded) {
      this.#giveUp(TIMED_OUT, 'the request took too long');
      return;
    }
    this.#log.details = 'the answer took too long';
    this.#attempt?.abort();
    this.#break();
  }

  /** Whether there will be another try; then it has been arranged for. */
  #isRetried(outcome: AttemptOutcome): boolean {
    if (this.#isOver) return true;
    const { cluster, retry, timeoutMs } = this.#plan;
    // The last retry is over before the next begins.
    this.#endRetry?.();
    const load = this.#deps.balancer.load(cluster);
    const facts = {
      method: this.#exchange.head.method,
      isReplayable: this.#body.canBeSentAgain(outcome.kind === 'connect-failure'),
      isAnswered: this.#hasResponded,
      remainingMs:
        timeoutMs > 0 ? timeoutMs - (performance.now() - this.#startedAt) : Number.POSITIVE_INFINITY,
      activeRequests: load.requests,
      activeRetries: load.retries,
      draw: this.#deps.random,
    };
    const next = decideRetry(retry, this.#log.attempts, outcome, facts, cluster.retryBudget);
    if (next.kind === 'give-up') {
      if (next.reason !== 'not-retriable' && next.reason !== 'answer-started')
        this.#log.retrySkipped = next.reason;
      if (next.flag !== undefined) this.#log.flag(next.flag);
      return false;
    }
    this.#endRetry = this.#deps.balancer.beginRetry(cluster);
    this.#leaveTry();
    this.#pauseTimer = setTimeout(() => this.#begin(), timerMs(next.pauseMs));
    return true;
  }

  #leaveTry(): void {
    clearTimeout(this.#tryTimer);
    this.#tryTimer = undefined;
    this.#body.detach();
    this.#attempt = undefined;
    this.#endTry?.();
    this.#endTry = undefined;
    this.#endFault?.();
    this.#endFault = undefined;
  }

  #respond(status: number, headers: HeaderList, endpoint: Endpoint): void {
    if (this.#isOver) return;
    this.#hasResponded = true;
    clearTimeout(this.#tryTimer);
    this.#body.forget();
    this.#log.status = status;
    this.#log.readGrpcStatus(headers);
    this.#exchange.respond(status, this.#plan.answer(status, headers, endpoint));
    if (this.#kbps === Number.POSITIVE_INFINITY) return;
    const send = (chunk: Buffer): boolean => this.#exchange.write(chunk);
    this.#slow = new RateLimit(this.#kbps, send, () => this.#attempt?.resume());
  }

  #write(chunk: Buffer): void {
    if (this.#isOver) return;
    const hasRoom = this.#slow === undefined ? this.#exchange.write(chunk) : this.#slow.write(chunk);
    if (!hasRoom) this.#attempt?.pause();
  }

  #end(trailers: HeaderList): void {
    if (this.#isOver) return;
    this.#log.readGrpcStatus(trailers);
    const finish = (): void => {
      this.#settle();
      this.#exchange.end(trailers);
      this.#body.discard();
    };
    this.#attempt = undefined;
    if (this.#slow === undefined) finish();
    else this.#slow.end(finish);
  }

  #upgrade(status: number, headers: HeaderList, upgraded: Upgraded): void {
    if (this.#isOver) {
      upgraded.tunnel.abort();
      return;
    }
    this.#hasResponded = true;
    const endTry = this.#endTry;
    this.#endTry = undefined;
    this.#settle();
    const { protocol, upgrade = '' } = this.#exchange.head;
    const isHttp2 = protocol === 'HTTP/2';
    this.#log.status = isHttp2 ? 200 : status;
    const ofConnection = isHttp2 ? [] : ['connection', 'Upgrade', 'upgrade', upgrade];
    const kept = this.#plan.answer(this.#log.status, headers, upgraded.endpoint);
    const answer = [...ofConnection, ...kept];
    this.#upgraded = joinUpgraded(this.#exchange, upgraded.tunnel, answer, {
      log: this.#log,
      onOver: () => endTry?.(),
    });
    const { downstream } = this.#exchange;
    if (isHttp2 || downstream.tunnel === undefined || !(upgraded.tunnel instanceof LegTunnel)) return;
    const log = this.#log;
    const { leave } = this.#upgraded;
    downstream.tunnel.carrier = carrierOf(downstream, upgraded.tunnel.leg, {
      record: () => log.snapshot(),
      leave,
    });
  }

  /** Answers in the application's place. */
  #giveUp(reply: LocalReply, details: string): void {
    const attempt = this.#attempt;
    this.#log.details = details;
    this.#settle();
    attempt?.abort();
    this.#plan.reply(reply);
    this.#body.discard();
  }

  /** The client gets to see that the answer is not complete. */
  #break(): void {
    this.#settle();
    // First, or it would look as if the client had left.
    this.#log.finish();
    // What of the answer has been written, perhaps in this very turn, goes out before.
    setImmediate(() => this.#exchange.abort());
  }

  #settle(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#pauseTimer);
    this.#slow?.stop();
    this.#leaveTry();
    this.#endRetry?.();
    this.#endRequest();
  }
}

function responseOf(status: number, headers: HeaderList): AttemptOutcome {
  const retryAfter = status < 400 ? undefined : firstValue(headers, 'retry-after');
  const retryAfterMs = retryAfter === undefined ? undefined : parseRetryAfter(retryAfter, Date.now());
  return { kind: 'response', status, ...(retryAfterMs !== undefined && { retryAfterMs }) };
}

interface Upgraded {
  readonly tunnel: ByteTunnel;
  readonly endpoint: Endpoint;
}

/** An upgraded connection, both ends of it. */
interface JoinedTunnel {
  readonly cut: (reason: string, flag: 'LR' | 'OM') => void;
  readonly held: () => number;
  /** It goes on elsewhere: lets go of both ends, and nobody is told. */
  readonly leave: () => void;
}

/** Both ends speak another protocol from now on: its bytes go both ways until they end, or break. */
function joinUpgraded(
  exchange: Exchange,
  upstream: ByteTunnel,
  answer: HeaderList,
  { log, onOver }: { readonly log: RequestLog; readonly onOver: () => void },
): JoinedTunnel {
  const downstream = exchange.upgrade(log.status, answer);
  let cutFlag: 'LR' | 'OM' = 'LR';
  const cut = joinTunnels(downstream, upstream, (end) => {
    onOver();
    if (end.kind === 'aborted') {
      log.flag(end.side === 'upstream' ? 'UC' : 'DC');
      log.details = end.reason;
    } else if (end.kind === 'cut') {
      log.flag(cutFlag);
      log.details = end.reason;
    }
    log.finish();
  });
  return {
    cut: (reason, flag) => {
      cutFlag = flag;
      cut(reason);
    },
    held: () => downstream.held() + upstream.held(),
    leave: () => {
      log.leave();
      cut('another process has it');
    },
  };
}
