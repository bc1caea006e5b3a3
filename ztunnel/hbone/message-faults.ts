import { fieldOf } from './headers.ts';
import type { Field } from './hpack-tables.ts';

/** A field's name in HTTP/2: a token without capitals (RFC 9113, 8.2.1). */
const NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** What no value may have in it: NUL, and what would begin another line of HTTP/1.1. */
const FORBIDDEN_IN_VALUE = /[\0\r\n]/;
/** Fields that are about a connection of HTTP/1.1 (RFC 9113, 8.2.2). */
const OF_A_CONNECTION: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);
const OF_REQUESTS: ReadonlySet<string> = new Set([':method', ':scheme', ':authority', ':path', ':protocol']);
const OF_ANSWERS: ReadonlySet<string> = new Set([':status']);

/**
 * What makes a request malformed (RFC 9113, 8.1.1 and 8.3.1), for people; undefined when nothing does. Whether it is one that is
 * served is for others to say.
 */
export function faultOfRequest(fields: readonly Field[]): string | undefined {
  const fault = faultOf(fields, OF_REQUESTS);
  if (fault !== undefined) return fault;
  const method = fieldOf(fields, ':method');
  if (method === undefined) return 'no :method';
  if (method === 'CONNECT') return undefined;
  if (fieldOf(fields, ':scheme') === undefined) return 'no :scheme';
  return (fieldOf(fields, ':path') ?? '') === '' ? 'no :path' : undefined;
}

/** The same for an answer. */
export function faultOfAnswer(fields: readonly Field[]): string | undefined {
  const fault = faultOf(fields, OF_ANSWERS);
  if (fault !== undefined) return fault;
  return fieldOf(fields, ':status') === undefined ? 'no :status' : undefined;
}

function faultOf(fields: readonly Field[], pseudoFields: ReadonlySet<string>): string | undefined {
  let isRegular = false;
  const seen: string[] = [];
  for (const [name, value] of fields) {
    if (FORBIDDEN_IN_VALUE.test(value)) return 'a control character in a value';
    if (!name.startsWith(':')) {
      isRegular = true;
      if (!NAME.test(name)) return 'a name that is none';
      if (OF_A_CONNECTION.has(name)) return `${name} is not for HTTP/2`;
      if (name === 'te' && value !== 'trailers') return 'te other than trailers';
      continue;
    }
    if (isRegular) return `${name} after other fields`;
    if (!pseudoFields.has(name)) return 'an unknown pseudo-header field';
    if (seen.includes(name)) return `${name} twice`;
    seen.push(name);
  }
  return undefined;
}
