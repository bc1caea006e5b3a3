import type { ClientHttp2Session } from 'node:http2';
import { type AdsClient, encodeAdsRequest } from './ads.ts';
import { requestCertificate } from './ca.ts';
import { connectGrpc, type GrpcStatus } from './grpc.ts';
import { identityOf, type NodeParts, type Pod } from './pod.ts';
import { ADS_REQUESTS } from './recording.ts';
import { callMetadata, type Settings } from './settings.ts';
import type { Enrolment } from './zds.ts';

/** What a test has the played ztunnel do beside what it does by itself. */
export type Command =
  /** Rejects these resources when they come, with the reasons. */
  | { readonly do: 'reject'; readonly reasons: Readonly<Record<string, string>> }
  /** Refuses the next pod with this error. */
  | { readonly do: 'refuse-next-add'; readonly error: string }
  /** Begins to end, as at SIGTERM: listeners close, peers are told. */
  | { readonly do: 'drain' }
  | { readonly do: 'disconnect-ads' }
  | { readonly do: 'connect-ads' }
  /** Asks for configuration with another token; empty: none. */
  | { readonly do: 'try-ads'; readonly token: string }
  /** Renews no certificate, or does again. */
  | { readonly do: 'hold-renewals'; readonly hold: boolean }
  | { readonly do: 'try-certificate'; readonly identity: string; readonly token?: string }
  /** Sends requests over one session from a pod (by name) to an address. */
  | {
      readonly do: 'ask';
      readonly pod: string;
      readonly ip: string;
      readonly requests: readonly HboneRequest[];
    };

export interface HboneRequest {
  readonly headers: Readonly<Record<string, string>>;
  /** Sent after a 200. */
  readonly body?: string;
}

export interface HboneAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** RST_STREAM's code; 0: ended in order. */
  readonly code: number;
  readonly body: string;
}

/** What comes of each command. */
export interface Results {
  readonly reject: null;
  readonly 'refuse-next-add': null;
  readonly drain: null;
  readonly 'disconnect-ads': null;
  readonly 'connect-ads': null;
  readonly 'try-ads': GrpcStatus;
  readonly 'hold-renewals': null;
  readonly 'try-certificate': GrpcStatus & { readonly chain: readonly string[] };
  readonly ask: readonly HboneAnswer[];
}

export interface Commanded {
  readonly settings: Settings;
  readonly ads: AdsClient;
  readonly enrolment: Enrolment;
  readonly parts: NodeParts;
  readonly connect: () => Promise<void>;
  readonly disconnect: () => void;
  readonly holdRenewals: (hold: boolean) => void;
}

/** Runs one command to its end. */
export async function runCommand(command: Command, on: Commanded): Promise<Results[keyof Results]> {
  switch (command.do) {
    case 'reject':
      on.ads.reject(new Map(Object.entries(command.reasons)));
      return null;
    case 'refuse-next-add':
      on.enrolment.refuseNextAdd(command.error);
      return null;
    case 'drain':
      on.enrolment.drain(on.parts.kernel);
      return null;
    case 'disconnect-ads':
      on.disconnect();
      return null;
    case 'connect-ads':
      await on.connect();
      return null;
    case 'try-ads':
      return tryAds(on.settings, command.token);
    case 'hold-renewals':
      on.holdRenewals(command.hold);
      return null;
    case 'try-certificate': {
      const { status, chain } = await requestCertificate(on.settings, command.identity, command.token);
      return { ...status, chain };
    }
    case 'ask':
      return ask(on, command);
  }
}

async function tryAds(settings: Settings, token: string): Promise<GrpcStatus> {
  const channel = await connectGrpc(settings.xdsAddress, settings.xdsRoots());
  const path = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources';
  const call = channel.call(path, callMetadata(settings, token), () => call.cancel());
  const [first] = ADS_REQUESTS;
  if (first === undefined) throw new Error('no request was recorded');
  const fields = { ...first.node?.metadata.fields, NODE_NAME: { stringValue: settings.nodeName } };
  const node = { id: first.node?.id ?? '', cluster: '', metadata: { fields } };
  call.send(encodeAdsRequest({ ...first, node }));
  const status = await call.status;
  channel.close();
  return status;
}

async function ask(on: Commanded, command: Command & { do: 'ask' }): Promise<readonly HboneAnswer[]> {
  const pod = [...on.enrolment.pods.values()].find(({ info }) => info.name === command.pod);
  if (pod === undefined) throw new Error(`no pod ${command.pod} is served`);
  const session = await openSession(on, pod, command.ip);
  const answers: HboneAnswer[] = [];
  for (const request of command.requests) answers.push(await askOne(session, request));
  return answers;
}

async function openSession(on: Commanded, pod: Pod, ip: string): Promise<ClientHttp2Session> {
  const server = on.parts.tables.workloadAt(ip);
  if (server === undefined) throw new Error(`no workload has the address ${ip}`);
  const svid = await on.parts.certificate(identityOf(await pod.workload()));
  return pod.session(svid, ip, [identityOf(server)]);
}

function askOne(session: ClientHttp2Session, { headers, body }: HboneRequest): Promise<HboneAnswer> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ...headers }, { endStream: false });
    let status = 0;
    let received: Record<string, string> = {};
    let text = '';
    stream.on('response', ({ ':status': code = 0, ...rest }) => {
      status = code;
      received = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, String(value)]));
      stream.end(code === 200 ? body : undefined);
    });
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      text += chunk;
    });
    stream.on('error', () => undefined); // Its close says so.
    stream.on('close', () => {
      if (status === 0) reject(new Error(`no response; the stream was closed with ${stream.rstCode}`));
      else resolve({ status, headers: received, code: stream.rstCode ?? 0, body: text });
    });
  });
}
