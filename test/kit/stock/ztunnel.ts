/**
 * Plays a stock ztunnel in shared mode: `node ztunnel.ts` in a node's network namespace, with the environment that a stock
 * one reads. It is written from the recordings and fact sheets and shares no code with Tulle's own parts, so that what they
 * would both get wrong shows. Standard output has its journal (journal.ts), a JSON line an entry; standard input takes
 * commands (commands.ts), a JSON line each. It ends with its standard input.
 */
import readline from 'node:readline';
import { AdsClient } from './ads.ts';
import { readSvid, renewalDelayMs, requestCertificate, rootSerials, type Svid } from './ca.ts';
import { type Command, runCommand } from './commands.ts';
import { answerQuery } from './dns.ts';
import { connectGrpc, type GrpcChannel } from './grpc.ts';
import type { Journal } from './journal.ts';
import { Kernel } from './kernel.ts';
import { identityOf, type NodeParts } from './pod.ts';
import { readSettings } from './settings.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, Tables } from './tables.ts';
import { Enrolment } from './zds.ts';

const RECONNECT_MS = 100;
const RENEW_AGAIN_MS = 1000;

const journal: Journal = (entry) => void process.stdout.write(`${JSON.stringify(entry)}\n`);
const settings = readSettings(process.env);
const tables = new Tables();
const enrolment = new Enrolment(journal);
const certificates = new Map<string, Promise<Svid>>();
const answered = new Set<string>();
let channel: GrpcChannel | undefined;
let held: PromiseWithResolvers<void> | undefined;

const kernel = await Kernel.start(
  {
    onConnected: () => enrolment.greet(kernel),
    onDisconnected: () => setTimeout(() => kernel.connect(), RECONNECT_MS),
    onPacket: (packet) => void enrolment.receive(packet, parts),
    onConnection: (connection) => {
      const pod = enrolment.podIn(connection.netns);
      if (pod === undefined) connection.reset();
      else void pod.serve(connection);
    },
    onQuery: (netns, query) => {
      const pod = enrolment.podIn(netns);
      return pod && answerQuery(tables, pod.info.namespace, query);
    },
  },
  settings.zdsPath,
);
const parts: NodeParts = { kernel, tables, journal, certificate };
const ads = new AdsClient({ settings, tables, journal, onResponse: settle });

/** One certificate an identity, for all pods of it. */
function certificate(identity: string): Promise<Svid> {
  const known = certificates.get(identity);
  if (known !== undefined) return known;
  const asked = obtain(identity);
  certificates.set(identity, asked);
  asked.catch(() => certificates.delete(identity)); // The journal has it.
  return asked;
}

/** Asks for a certificate, and for the next one when it is time. */
async function obtain(identity: string): Promise<Svid> {
  try {
    const svid = readSvid(identity, await requestCertificate(settings, identity));
    journal({ event: 'certificate', identity, error: null, roots: rootSerials(svid) });
    setTimeout(() => void renew(identity), renewalDelayMs(svid, Date.now()));
    return svid;
  } catch (error) {
    journal({ event: 'certificate', identity, error: String(error), roots: [] });
    throw error;
  }
}

/** Until there is another the old one serves; one that no workload needs any more is forgotten. */
async function renew(identity: string): Promise<void> {
  await held?.promise;
  if (!localIdentities().has(identity)) return void certificates.delete(identity);
  try {
    certificates.set(identity, Promise.resolve(await obtain(identity)));
  } catch {
    setTimeout(() => void renew(identity), RENEW_AGAIN_MS);
  }
}

/** As a ztunnel whose time for it has not come yet. */
function holdRenewals(hold: boolean): void {
  held?.resolve();
  held = hold ? Promise.withResolvers() : undefined;
}

function localIdentities(): ReadonlySet<string> {
  const workloads = [...tables.workloads.values()];
  return new Set(workloads.filter(({ node, hbone }) => hbone && node === settings.nodeName).map(identityOf));
}

/** Enrolment begins when both types have been answered; certificates of the node's workloads are fetched beforehand. */
function settle(type: string): void {
  tables.settled();
  for (const identity of localIdentities()) certificate(identity).catch(() => undefined);
  if (answered.has(type)) return;
  answered.add(type);
  if ([ADDRESS_TYPE, AUTHORIZATION_TYPE].every((one) => answered.has(one))) kernel.connect();
}

async function connect(): Promise<void> {
  channel = await connectGrpc(settings.xdsAddress, settings.xdsRoots());
  const { status } = ads.open(channel);
  void status.then(({ code, message }) => journal({ event: 'ads end', code, message }));
}

async function obey(line: string): Promise<void> {
  const { id, ...command } = JSON.parse(line) as Command & { readonly id: number };
  const disconnect = (): void => channel?.close();
  const value = await runCommand(command, {
    settings,
    ads,
    enrolment,
    parts,
    connect,
    disconnect,
    holdRenewals,
  });
  process.stdout.write(`${JSON.stringify({ event: 'result', id, value })}\n`);
}

await connect();
readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => void obey(line))
  .on('close', () => {
    kernel[Symbol.dispose]();
    process.exit(0);
  });
