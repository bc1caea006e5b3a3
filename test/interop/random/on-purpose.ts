import type { Aspect, Case, Field, Observation } from '../case.ts';
import { isMirror } from '../stage/journal.ts';

/** What differs on purpose, and why. */
export interface Purpose {
  readonly because: string;
  readonly aspects: readonly Aspect[];
}

/** A request, whatever the version of HTTP. */
interface Sent {
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: readonly Field[];
  readonly isHttp1: boolean;
}

interface Both {
  readonly sent: Sent;
  readonly envoy: Observation;
  readonly ours: Observation;
  readonly script: string;
}

const ALL: readonly Aspect[] = [
  'status',
  'headers',
  'body',
  'trailers',
  'end',
  'earlier',
  'upstream',
  'attempts',
  'mirrors',
  'seen request',
  'mirrored requests',
];

/** Each says what it is about and when it may happen; the first counts. They are those of the table. */
const PURPOSES: readonly (Purpose & { readonly fits: (both: Both) => boolean })[] = [
  {
    because: 'a path that can be read in two ways is refused',
    aspects: ALL,
    fits: ({ sent, ours }) => ours.status === 400 && isAmbiguous(pathOf(sent)),
  },
  {
    because: 'encoded bytes are compared, and go on, in capitals',
    aspects: ALL,
    fits: ({ sent }) => /%(?:[0-9A-F][a-f]|[a-f][0-9A-Fa-f])/.test(pathOf(sent)),
  },
  {
    because: 'characters that a path has to encode are encoded',
    aspects: ALL,
    fits: ({ sent }) => /["<>{}|^`]/.test(pathOf(sent)),
  },
  {
    because: 'Envoy leaves two slashes where a path has nothing else',
    aspects: ALL,
    fits: ({ sent }) => /^\/{2,}$/.test(collapsed(pathOf(sent))),
  },
  {
    because: 'an origin that is not allowed gets no CORS headers',
    aspects: ['headers'],
    fits: ({ sent, ours }) =>
      sent.method === 'OPTIONS' &&
      ours.status === 200 &&
      ours.seen.length === 0 &&
      valuesOf(sent.headers, 'origin').length > 0 &&
      valuesOf(ours.headers, 'access-control-allow-origin').length === 0,
  },
  {
    because: "the port of a redirect is the service's, not that of Host",
    aspects: ['headers'],
    fits: ({ sent, ours }) =>
      /:\d+$/.test(sent.host) && ours.status >= 301 && ours.status <= 308 && ours.seen.length === 0,
  },
  {
    because: 'x-forwarded-proto is kept only where it names a scheme',
    aspects: ALL,
    fits: ({ sent }) =>
      valuesOf(sent.headers, 'x-forwarded-proto').some((value) => value !== 'http' && value !== 'https'),
  },
  {
    because: 'of a header that comes in several lines each is looked at, and all together',
    aspects: ALL,
    fits: ({ sent }) => isRepeated(sent.headers),
  },
  {
    because: 'ports that a scheme has anyway are left out of a redirect',
    aspects: ['headers'],
    fits: ({ envoy, ours }) =>
      locationOf(envoy) !== locationOf(ours) &&
      locationOf(envoy).replace(/:(?:80|443)(?=\/)/, '') === locationOf(ours),
  },
  {
    because: 'a 204 has no body, whatever is said of its length',
    aspects: ALL,
    fits: ({ script, ours }) => script === 'raw:status-204-with-body' && ours.status === 204,
  },
  {
    because: 'what a route adds to a header that is empty is a line of its own',
    aspects: ['seen request', 'mirrored requests'],
    fits: ({ sent }) => sent.headers.some(([, value]) => value === ''),
  },
  {
    because: 'a cookie that is empty goes on',
    aspects: ['seen request', 'mirrored requests'],
    fits: ({ sent }) => !sent.isHttp1 && valuesOf(sent.headers, 'cookie').includes(''),
  },
  {
    because: 'early hints are passed on',
    aspects: ['earlier'],
    fits: ({ envoy, ours }) => envoy.earlier.length === 0 && ours.earlier.join() === '103',
  },
  {
    because: 'a Referer may be any reference, not only a whole URL',
    aspects: ['seen request', 'mirrored requests'],
    fits: ({ sent }) => valuesOf(sent.headers, 'referer').length > 0,
  },
  {
    because: 'a mirror gets its copy also where the backend itself has no endpoints',
    aspects: ['mirrors', 'mirrored requests'],
    fits: ({ ours, envoy }) => ours.body === 'no healthy upstream' && envoy.body === ours.body,
  },
  {
    because: 'a caller of HTTP/1 has to ask for trailers',
    aspects: ['trailers'],
    fits: ({ sent, envoy, ours }) => sent.isHttp1 && ours.trailers.length === 0 && envoy.trailers.length > 0,
  },
  {
    because: 'what met a connection that was being closed is tried again',
    aspects: ALL,
    fits: ({ envoy, ours, script }) => script.startsWith('reset') && triesOf(ours) > triesOf(envoy),
  },
  {
    because: 'after a reset only what is safe to repeat is sent again',
    aspects: ALL,
    fits: ({ sent, ours, script }) =>
      /^(reset|close|slow|raw)/.test(script) &&
      !/^(GET|HEAD|OPTIONS|TRACE|PUT|DELETE)$/.test(sent.method) &&
      triesOf(ours) <= 1,
  },
];

/** Why an answer of ours may differ from Envoy's, and in what; none: there is no reason. */
export function purposesOf(
  { send, script = '' }: Case,
  envoy: Observation,
  ours: Observation,
): readonly Purpose[] {
  const sent = sentOf(send);
  return PURPOSES.filter(({ fits }) => fits({ sent, envoy, ours, script }));
}

function sentOf(send: Case['send']): Sent {
  if ('raw' in send) throw new TypeError('raw requests are not made at random');
  if ('protocol' in send) return { ...send, host: send.host ?? '', isHttp1: send.protocol === 'http1' };
  const pseudo = (name: string): string => valuesOf(send.fields, name)[0] ?? '';
  return {
    method: pseudo(':method'),
    path: pseudo(':path'),
    host: pseudo(':authority'),
    headers: send.fields,
    isHttp1: false,
  };
}

function pathOf({ path }: Sent): string {
  return path.split('?', 1)[0] ?? '';
}

/** Once its dots are resolved. */
function collapsed(path: string): string {
  return new URL(`http://x${path.replaceAll(/%2e/gi, '.')}`).pathname;
}

function isAmbiguous(path: string): boolean {
  return /[\x80-\xff]|\\|%(?![0-9A-Fa-f]{2})|%25|%[01]|%7f|%[89a-f]|\/(?:\.{0,2}|(?:%2e|\.){1,2})(?:;|%3b)|%[c-f]/i.test(
    path,
  );
}

function valuesOf(headers: readonly Field[], name: string): readonly string[] {
  return headers.filter(([own]) => own.toLowerCase() === name).map(([, value]) => value);
}

function isRepeated(headers: readonly Field[]): boolean {
  return new Set(headers.map(([name]) => name.toLowerCase())).size < headers.length;
}

function locationOf({ headers }: Observation): string {
  return valuesOf(headers, 'location')[0] ?? '';
}

function triesOf({ seen }: Observation): number {
  return seen.filter(({ app }) => !isMirror(app)).length;
}
