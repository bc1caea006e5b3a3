import { formatHostPort } from '#api/address.ts';
import { type SpliceEnd, splice } from '#ztunnel/hbone/splice.ts';
import type { Downstream } from './exchange.ts';
import type { Cluster, Endpoint } from './model.ts';
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
  };
  const upstream = await connect(story, deps);
  if (upstream === undefined) {
    tunnel.leg.abort();
    deps.record(recordOf(story, { received: 0, sent: 0 }));
    return;
  }
  const joined = splice(tunnel.leg, upstream.leg, (end) => {
    upstream.release();
    noteEnd(story, end);
    deps.record(recordOf(story, joined.bytes()));
  });
}

interface Connected {
  readonly leg: TunnelLeg;
  readonly release: () => void;
}

async function connect(story: Story, deps: ServeDeps): Promise<Connected | undefined> {
  const { downstream, serverName } = story.tunnel;
  const config = deps.config();
  const frontend = config.frontends.named(downstream.frontend.name) ?? downstream.frontend;
  const denied = whyDenied(deps.authorize(frontend, downstream.caller, undefined, downstream.authority));
  if (denied !== undefined) return fail(story, denied);
  const decision = decideStream({ config, frontend, serverName, weights: deps.weights });
  story.decision = decision;
  if (decision.kind === 'refused') return fail(story, decision.reason, 'NR');
  return await connectTo(decision.cluster, story, deps);
}

async function connectTo(cluster: Cluster, story: Story, deps: ServeDeps): Promise<Connected | undefined> {
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
      return { leg: await deps.upstream.openLeg(target, NEVER), release };
    } catch (error) {
      release();
      const { kind, reason } = connectFailure(error);
      story.details = reason;
      // That is an answer; another endpoint's policies are not for the caller to try.
      if (kind === 'denied') return fail(story, reason, 'UAEX');
    }
  }
  return fail(story, story.details, 'UF');
}

/** A caller that leaves meanwhile is noticed when its bytes are read. */
const NEVER: AbortSignal = new AbortController().signal;

function fail(story: Story, details: string, flag?: ResponseFlag): undefined {
  story.details = details;
  if (flag !== undefined) story.flags.push(flag);
}

function noteEnd(story: Story, end: SpliceEnd): void {
  if (end.kind === 'complete') return;
  story.details = end.reason;
  if (end.kind === 'aborted') story.flags.push(end.side === 'upstream' ? 'UC' : 'DC');
}

function recordOf(story: Story, bytes: { readonly received: number; readonly sent: number }): RequestRecord {
  const { tunnel, decision, endpoint, flags, details, attempts } = story;
  const { caller, frontend, authority } = tunnel.downstream;
  const forwarded = decision?.kind === 'forward' ? decision : undefined;
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
    route: forwarded?.route.origin.object ?? '',
    origin: forwarded?.route.origin,
    cluster: forwarded?.cluster.name ?? '',
    backend: forwarded?.cluster.backend ?? '',
    endpoint,
    attempts,
    upstreamMs: undefined,
    faults: [],
  };
}
