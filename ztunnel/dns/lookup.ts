import packet from 'dns-packet';
import { type Ip, parseIp } from '#api/address.ts';
import { ForwardError, type Forwarder } from './forward.ts';
import { readQuery } from './query.ts';

/**
 * The addresses of a hostname outside the mesh, IPv4 first; none if it does not exist.
 * @throws ForwardError when no name server answered for either family
 */
export async function lookUpHostname(forwarder: Forwarder, hostname: string): Promise<readonly Ip[]> {
  const families = await Promise.allSettled([
    ask(forwarder, hostname, 'A'),
    ask(forwarder, hostname, 'AAAA'),
  ]);
  const [first] = families.filter((family) => family.status === 'rejected');
  const answered = families.filter((family) => family.status === 'fulfilled');
  if (answered.length === 0 && first !== undefined) throw first.reason;
  return answered.flatMap(({ value }) => value);
}

async function ask(forwarder: Forwarder, hostname: string, type: 'A' | 'AAAA'): Promise<readonly Ip[]> {
  const message = packet.encode({
    type: 'query',
    flags: packet.RECURSION_DESIRED,
    questions: [{ name: hostname, type }],
  });
  const incoming = readQuery(message);
  if (incoming.kind !== 'query') throw new ForwardError(`not a hostname: ${hostname}`, { code: 'NO_ANSWER' });
  const response = await forwarder.forward(incoming.query, 'udp');
  return addressesIn(response, type);
}

function addressesIn(response: Buffer, type: 'A' | 'AAAA'): readonly Ip[] {
  try {
    const answers = packet.decode(response).answers ?? [];
    return answers.flatMap((answer) =>
      answer.type === type && 'data' in answer ? parseIp(String(answer.data)) : [],
    );
  } catch (cause) {
    throw new ForwardError('the answer of a name server cannot be read', { code: 'NO_ANSWER', cause });
  }
}
