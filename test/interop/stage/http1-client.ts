import type { Duplex } from 'node:stream';
import type { Observation, RawRequest, Request } from '../case.ts';
import { type Answer, endsWithConnection, readAnswer } from './response-reader.ts';

/** What came back over one connection. */
export type Reception = Omit<Observation, 'seen' | 'ms'>;

/** The bytes of a well-formed request. */
export function requestBytes(request: Request, host: string, extra: string): RawRequest {
  const body = request.body ?? 'x'.repeat(request.bodyBytes ?? 0);
  const hasBody = request.body !== undefined || request.bodyBytes !== undefined;
  const framing =
    request.chunked === true
      ? ['transfer-encoding: chunked']
      : hasBody
        ? [`content-length: ${Buffer.byteLength(body, 'latin1')}`]
        : [];
  const lines = [
    `${request.method} ${request.path} HTTP/1.1`,
    `host: ${request.host ?? host}`,
    ...request.headers.map(([name, value]) => `${name}: ${value}`),
    ...framing,
  ];
  const trailers = (request.trailers ?? []).map(([name, value]) => `${name}: ${value}\r\n`).join('');
  const sent = request.chunked === true ? `${chunk(body)}0\r\n${trailers}\r\n` : body;
  return { raw: `${lines.join('\r\n')}\r\n${extra}\r\n${sent}` };
}

function chunk(body: string): string {
  return body === '' ? '' : `${body.length.toString(16)}\r\n${body}\r\n`;
}

/** Sends the bytes and reads what is answered, until it is whole, the connection ends or patience does. Closes it. */
export async function converse(
  connection: Duplex,
  request: RawRequest,
  patienceMs: number,
): Promise<Reception> {
  const isHead = request.raw.startsWith('HEAD ');
  const wanted = request.answers ?? 1;
  let bytes = '';
  let hasSaidMore = false;
  const { promise, resolve, reject } = Promise.withResolvers<Reception>();
  const look = (over: 'open' | 'ended' | 'slow'): void => {
    try {
      const found = answersIn(bytes, isHead);
      const finals = found.filter(({ status }) => status >= 200 || status === 101);
      if (request.afterHead !== undefined && finals.length > 0 && !hasSaidMore) {
        hasSaidMore = true;
        connection.write(request.afterHead, 'latin1');
      }
      const isWhole = finals.length >= wanted && finals.at(-1)?.isComplete === true;
      if (over !== 'open' || (isWhole && request.afterHead === undefined))
        resolve(received(found, bytes, over));
    } catch (error) {
      reject(error);
    }
  };
  const timer = setTimeout(look, patienceMs, 'slow');
  connection.on('data', (data: Buffer) => {
    bytes += data.toString('latin1');
    look('open');
  });
  connection.on('error', () => look('ended'));
  connection.on('end', () => look('ended'));
  connection.on('close', () => look('ended'));
  connection.write(request.raw, 'latin1');
  if (request.end === true) connection.end();
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    connection.destroy();
  }
}

/** All answers so far; after a 101 everything is its body. */
function answersIn(bytes: string, isHead: boolean): readonly Answer[] {
  const answers: Answer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const answer = readAnswer(bytes, at, isHead);
    if (answer === undefined) return answers;
    if (answer.status === 101)
      return [...answers, { ...answer, body: bytes.slice(answer.next), isComplete: false }];
    answers.push(answer);
    if (!answer.isComplete) return answers;
    at = answer.next;
  }
  return answers;
}

function received(answers: readonly Answer[], bytes: string, over: 'open' | 'ended' | 'slow'): Reception {
  const last = answers.at(-1);
  const isFinal = last !== undefined && (last.status >= 200 || last.status === 101);
  const rest = { headers: [], body: isFinal ? '' : bytes.slice(last?.next ?? 0), trailers: [] };
  const earlier = (isFinal ? answers.slice(0, -1) : answers).map(({ status }) => status);
  if (!isFinal) return { status: 0, ...rest, earlier, end: over === 'slow' ? 'slow' : 'none' };
  const { status, headers, body, trailers } = last;
  const isWhole = last.isComplete || (over === 'ended' && (status === 101 || endsWithConnection(last)));
  const end = isWhole ? 'complete' : over === 'slow' ? 'slow' : 'incomplete';
  return { status, headers, body, trailers, earlier, end };
}
