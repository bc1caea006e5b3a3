import type { RouteMetadata } from '#api/envoy/metadata.ts';
import type { StreamEntry, TlsEntry } from '../routes/attached.ts';
import { clustersOf } from './backends.ts';
import type { TcpChain } from './listeners.ts';
import { invalidClusterName } from './names.ts';
import type { ServiceBook } from './service-book.ts';
import type { Target } from './target.ts';

/** Chains of a listener, and the ports that they lead to, whose clusters have to be there. */
export interface MadeChains {
  readonly chains: readonly TcpChain[];
  readonly targets: readonly Target[];
}

/** Of TCPRoutes: the first has all connections. */
export function tcpChains(book: ServiceBook, name: string, entries: readonly StreamEntry[]): MadeChains {
  return makeChains(book, name, entries.slice(0, 1), () => []);
}

/** Of TLSRoutes: a name in the ClientHello each, the most specific first. */
export function tlsChains(book: ServiceBook, name: string, entries: readonly TlsEntry[]): MadeChains {
  return makeChains(book, name, entries, ({ hostnames }) => hostnames);
}

function makeChains<Entry extends StreamEntry>(
  book: ServiceBook,
  name: string,
  entries: readonly Entry[],
  serverNames: (entry: Entry) => readonly string[],
): MadeChains {
  const made = entries.map((entry, index) => {
    const { object, rule, ruleName } = entry;
    const metadata: RouteMetadata = { object, rule, ...(ruleName !== undefined && { rule_name: ruleName }) };
    const all = clustersOf(book, entry);
    const shares = all
      .filter(({ weight }) => weight > 0)
      .map((each) => ({ name: each.name, weight: each.weight }));
    const clusters = shares.length > 0 ? shares : [{ name: invalidClusterName(object, rule, 0), weight: 1 }];
    const chain: TcpChain = { name: `${name}|${index}`, serverNames: serverNames(entry), clusters, metadata };
    return { chain, targets: all.flatMap(({ target }) => target ?? []) };
  });
  if (made.length === 0) return { chains: [refusing(name)], targets: [] };
  return { chains: made.map(({ chain }) => chain), targets: made.flatMap(({ targets }) => targets) };
}

/** Refuses all connections. */
function refusing(name: string): TcpChain {
  const clusters = [{ name: invalidClusterName(name, 0, 0), weight: 1 }];
  return { name: `${name}|0`, serverNames: [], clusters, metadata: {} };
}
