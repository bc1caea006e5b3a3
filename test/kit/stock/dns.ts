import { decode, encode, type Packet } from 'dns-packet';
import type { Service } from './resources.ts';
import type { Tables } from './tables.ts';

const TTL_S = 30;
const AUTHORITATIVE_ANSWER = 1 << 10;
const RECURSION_AVAILABLE = 1 << 7;
const NAME_ERROR = 3;

/** Answers an address query about a service (fact sheet ambient-wire.md 7). What is not the mesh's does not exist. */
export function answerQuery(tables: Tables, namespace: string, bytes: Buffer): Buffer {
  const query: Packet = decode(bytes);
  const [question] = query.questions ?? [];
  const service = question && find(tables, namespace, question.name.toLowerCase());
  const family = question?.type === 'AAAA' ? ':' : '.';
  const answers = (service?.addresses ?? [])
    .filter((address) => address.includes(family))
    .map((data) => ({
      type: question?.type === 'AAAA' ? ('AAAA' as const) : ('A' as const),
      name: question?.name ?? '',
      ttl: TTL_S,
      data,
    }));
  return encode({
    type: 'response',
    id: query.id ?? 0,
    flags: AUTHORITATIVE_ANSWER | RECURSION_AVAILABLE | (service ? 0 : NAME_ERROR),
    questions: query.questions ?? [],
    answers,
  });
}

function find(tables: Tables, namespace: string, name: string): Service | undefined {
  const expansions = new Map([
    [1, `${name}.${namespace}.svc.cluster.local`],
    [2, `${name}.svc.cluster.local`],
    [3, `${name}.cluster.local`],
  ]);
  const candidates = [name, expansions.get(name.split('.').length)];
  return [...tables.services.values()].find(({ hostname }) => candidates.includes(hostname));
}
