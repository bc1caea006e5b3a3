import { formatHostPort } from '#api/address.ts';
import { type Splice, type SpliceEnd, splice } from '#ztunnel/hbone/splice.ts';
import type { Downstream } from './exchange.ts';
import { HeldLeg } from './held-leg.ts';
import type { LiveCall } from './live-calls.ts';
import { CONNECTION_BYTES, ownerOf } from './memory/costs.ts';
import type { Cluster, Endpoint } from './model.ts';
import { carrierOf } from './relay.ts';
import type { RequestRecord, ResponseFlag } from './request-record.ts';
import { decideStream, type StreamDecision } from './route/decide-stream.ts';
import type { ServeDeps } from './serve-deps.ts';
import type { TunnelLeg } from './tunnel-duplex.ts';
import { whyDenied } from './upstream/denial.ts';
import { connectFailure } from './upstream/http1-pool.ts';
import { addressOf, keyOfEndpoint } from './upstream/target.ts';

/** A tunnel in which no HTTP is spoken, or whatever it is, is not looked into. */
export interface TcpTunnel {
  readonly downstream: Downstream;
  /** Not started yet; the server's from now on. */
  readonly leg: TunnelLeg;
  /** Of a ClientHello, lower case. */
  readonly serverName?: string;
}

/** Connections that are tried: nothing has been sent yet, so that another endpoint may do. */
const CONNECT_ATTEMPTS = 2;

/** What is known of a connection when it is over. */
interface Story {
  readonly startMs: number;
  readonly start: number;
  readonly tunnel: TcpTunnel;
  readonly flags: ResponseFlag[];
  decision: StreamDecision | undefined;
  endpoint: Endpoint | undefined;
  attempts: number;
  details: string;
  /** Why, should it be cut. */
  cutFlag: ResponseFlag;
}

/**
 * Carries one connection to an application: by server name and weight to a cluster, there to an endpoint, then bytes both ways,
 * each direction ending by itself. Whatever goes wrong, the caller sees a reset; it is recorded once. Never rejects.
 */
export async function serveTcp(tunnel: TcpTunnel, deps: ServeDeps): Promise<void> {
  const story: Story = {
    startMs: Date.now(),
    start: performance.now(),
    tunnel,
    flags: [],
    decision: undefined,
    endpoint: undefined,
    attempts: 0,
    details: '',
    cutFlag: 'LR',
  };
  const gone = new AbortController();
  const leg = new HeldLeg(tunnel.leg, () =>
    gone.abort({ flag: 'DC', why: 'the caller left' } satisfies Ended),
  );
  let joined: Splice | undefined;
  let upstream: Connected | undefined;
  const cut = (flag: ResponseFlag, why: string): void => {
    if (joined === undefined) gone.abort({ flag, why } satisfies Ended);
    else {
      story.cutFlag = flag;
      joined.cut(why);
    }
  };
  const call: LiveCall = {
    owner: ownerOf(tunnel.downstream.caller),
    held: () => CONNECTION_BYTES + leg.held() + (upstream?.leg.held?.() ?? 0),
    shed: (why) => cut('OM', why),
    recheck: () => {
      const denied = whyNotNow(story, deps);
      if (denied !== undefined) cut('LR', `no longer allowed: ${denied}`);
    },
  };
  deps.live.add(call);
  const over = (bytes: Transferred): void => {
    deps.live.delete(call);
    deps.record(recordOf(story, bytes));
  };
  upstream = await connect(story, deps, gone.signal);
  deps.opened(recordOf(story, NOTHING));
  if (upstream === undefined) {
    leg.abort();
    over(NOTHING);
    return;
  }
  const { release } = upstream;
  joined = splice(leg, upstream.leg, (end) => {
    release();
    noteEnd(story, end);
    over(joined?.bytes() ?? NOTHING);
  });
  const { downstream } = tunnel;
  if (downstream.tunnel === undefined || downstream.tunnel.leg.isOver) return;
  downstream.tunnel.carrier = carrierOf(downstream, upstream.leg, {
    record: () => recordOf(story, joined?.bytes() ?? NOTHING),
    leave: () => {
      joined?.release();
      release();
      deps.live.delete(call);
    },
  });
}

interface Transferred {
  readonly received: number;
  readonly sent: number;
}

const NOTHING: Transferred = { received: 0, sent: 0 };

/** Why nothing is to become of a connection that is being made. */
interface Ended {
  readonly flag: ResponseFlag;
  readonly why: string;
}

interface Connected {
  readonly leg: TunnelLeg;
  readonly release: () => void;
}

/** Undefined: the caller may. By the newest configuration. */
function whyNotNow({ tunnel: { downstream } }: Story, deps: ServeDeps): string | undefined {
  const frontend = deps.config().frontends.named(downstream.frontend.name) ?? downstream.frontend;
  const { caller, authority } = downstream;
  return frontend.refuse ?? whyDenied(deps.authorize(frontend, caller, undefined, authority));
}

async function connect(story: Story, deps: ServeDeps, signal: AbortSignal): Promise<Connected | undefined> {
  const { downstream, serverName } = story.tunnel;
  const { frontend } = downstream;
  const denied = whyNotNow(story, deps);
  if (denied !== undefined) return fail(story, denied);
  const decision = decideStream({ config: deps.config(), frontend, serverName, weights: deps.weights });
  story.decision = decision;
  if (decision.kind === 'refused') return fail(story, decision.reason, 'NR');
  return await connectTo(decision.cluster, { story, deps, signal });
}

async function connectTo(
  cluster: Cluster,
  { story, deps, signal }: { readonly story: Story; readonly deps: ServeDeps; readonly signal: AbortSignal },
): Promise<Connected | undefined> {
  const { caller, authority } = story.tunnel.downstream;
  const tried = new Set<string>();
  while (story.attempts < CONNECT_ATTEMPTS) {
    const endpoint = deps.balancer.pick(cluster, { hashKey: caller.address.ip, exclude: tried });
    if (endpoint === undefined) return fail(story, 'no endpoint is healthy', 'UH');
    tried.add(keyOfEndpoint(endpoint));
    story.endpoint = endpoint;
    story.attempts += 1;
    const release = deps.balancer.begin(cluster, endpoint);
    try {
      const target = { caller, endpoint, address: addressOf(endpoint, authority), cluster };
      const leg = await deps.upstream.openLeg(target, signal);
      if (!signal.aborted) return { leg, release };
      leg.abort();
      release();
    } catch (error) {
      release();
      const { kind, reason } = connectFailure(error);
      story.details = reason;
      // That is an answer; another endpoint's policies are not for the caller to try.
      if (kind === 'denied') return fail(story, reason, 'UAEX');
    }
    if (signal.aborted) {
      const { why, flag }: Ended = signal.reason;
      return fail(story, why, flag);
    }
  }
  return fail(story, story.details, 'UF');
}

function fail(story: Story, details: string, flag?: ResponseFlag): undefined {
  story.details = details;
  if (flag !== undefined) story.flags.push(flag);
}

function noteEnd(story: Story, end: SpliceEnd): void {
  if (end.kind === 'complete') return;
  story.details = end.reason;
  if (end.kind === 'cut') story.flags.push(story.cutFlag);
  else story.flags.push(end.side === 'upstream' ? 'UC' : 'DC');
}

function recordOf(story: Story, bytes: Transferred): RequestRecord {
  const { tunnel, decision, endpoint, flags, details, attempts } = story;
  const { caller, frontend, authority } = tunnel.downstream;
  const forwarded = decision?.kind === 'forward' ? decision : undefined;
  const absent = decision?.kind === 'refused' ? decision.cluster : undefined;
  return {
    startMs: story.startMs,
    durationMs: performance.now() - story.start,
    caller,
    frontend,
    destination: formatHostPort(authority),
    protocol: 'TCP',
    status: 0,
    flags,
    details,
    bytesReceived: bytes.received,
    bytesSent: bytes.sent,
    route: decision?.route?.origin.object ?? '',
    origin: decision?.route?.origin,
    cluster: forwarded?.cluster.name ?? absent ?? '',
    backend: forwarded?.cluster.backend ?? '',
    endpoint,
    attempts,
    upstreamMs: undefined,
    faults: [],
  };
}
