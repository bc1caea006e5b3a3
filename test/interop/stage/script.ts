/**
 * What an application does with the attempts of a request, in order, `,` between; the last goes on for all that follow:
 *
 *   503,503,200      statuses                      reset            TCP reset (HTTP/2: RST_STREAM) before an answer
 *   slow:300         waits, then 200               close            FIN before an answer
 *   slow:300+503     waits, then 503               half             half of the promised body, then FIN
 *   refuse           RST_STREAM REFUSED_STREAM     half-reset       half of the promised body, then reset
 *   hang             never answers                 raw:NAME         bytes of RAW_ANSWERS
 *   trailers         a chunked body with trailers  grpc:14          a status of gRPC without a message
 *   hints            103, then 200                 grpc-late:14     a message, and then that status
 *   stall            half of the body, then nothing            bytes:N          N bytes
 *   header:NAME=VALUE  one more header, then 200
 */
export interface Step {
  readonly kind: (typeof KINDS)[number];
  /** What stands behind the colon; of a status the status. */
  readonly argument: string;
}

const KINDS = [
  'status',
  'slow',
  'header',
  'raw',
  'grpc',
  'grpc-late',
  'bytes',
  'reset',
  'close',
  'half',
  'half-reset',
  'refuse',
  'hang',
  'trailers',
  'hints',
  'stall',
] as const;

/** Header that carries the script, and the one that names the case. */
export const SCRIPT_HEADER = 'x-script';
export const CASE_HEADER = 'x-case';

/** Steps of one attempt (from 0), in order. @throws Error where the script is not of the grammar above */
export function stepsOf(script: string | undefined, attempt: number): readonly Step[] {
  if (script === undefined) return [{ kind: 'status', argument: '200' }];
  const attempts = script.split(',');
  return (attempts[Math.min(attempt, attempts.length - 1)] ?? '').split('+').map(parseStep);
}

function parseStep(text: string): Step {
  if (/^\d{3}$/.test(text)) return { kind: 'status', argument: text };
  const [, name = '', argument = ''] = /^([^:]*):?(.*)$/s.exec(text) ?? [];
  const kind = KINDS.find((known) => known === name);
  if (kind === undefined) throw new Error(`no step of a script: ${text}`);
  return { kind, argument };
}

/** Answers that are no HTTP, or dangerous HTTP. Each is followed by FIN. */
export const RAW_ANSWERS: ReadonlyMap<string, string> = new Map([
  ['garbage', 'I am no HTTP server\r\n\r\n'],
  ['binary', '\x00\x01\x02\x03\xff\xfe\r\n\r\n'],
  ['bad-status', 'HTTP/1.1 abc OK\r\nx-upstream: bad\r\ncontent-length: 2\r\n\r\nok'],
  ['no-colon', 'HTTP/1.1 200 OK\r\nx-upstream: bad\r\nno colon here\r\ncontent-length: 2\r\n\r\nok'],
  ['two-lengths', 'HTTP/1.1 200 OK\r\nx-upstream: bad\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!'],
  [
    'length-and-chunked',
    'HTTP/1.1 200 OK\r\nx-upstream: bad\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  ],
  [
    'bad-chunk',
    'HTTP/1.1 200 OK\r\nx-upstream: bad\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n',
  ],
  ['bad-length', 'HTTP/1.1 200 OK\r\nx-upstream: bad\r\ncontent-length: -1\r\n\r\nok'],
  ['nul-in-value', 'HTTP/1.1 200 OK\r\nx-upstream: bad\r\nx-nul: a\0b\r\ncontent-length: 2\r\n\r\nok'],
  ['folded', 'HTTP/1.1 200 OK\r\nx-upstream: bad\r\nx-folded: a\r\n b\r\ncontent-length: 2\r\n\r\nok'],
  ['until-close', 'HTTP/1.1 200 OK\r\nx-upstream: bad\r\n\r\nuntil the end'],
  ['http10', 'HTTP/1.0 200 OK\r\nx-upstream: bad\r\n\r\nuntil the end'],
  [
    'huge-header',
    `HTTP/1.1 200 OK\r\nx-upstream: bad\r\nx-huge: ${'h'.repeat(100_000)}\r\ncontent-length: 2\r\n\r\nok`,
  ],
  [
    'many-headers',
    `HTTP/1.1 200 OK\r\nx-upstream: bad\r\n${'x-many: 1\r\n'.repeat(200)}content-length: 2\r\n\r\nok`,
  ],
  ['head-only-half', 'HTTP/1.1 200 OK\r\nx-upstr'],
  [
    'too-much',
    'HTTP/1.1 200 OK\r\nx-upstream: bad\r\ncontent-length: 2\r\n\r\nok and more than was promised',
  ],
  [
    'unasked-101',
    'HTTP/1.1 101 Switching Protocols\r\nx-upstream: bad\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n',
  ],
  ['status-204-with-body', 'HTTP/1.1 204 No Content\r\nx-upstream: bad\r\ncontent-length: 2\r\n\r\nok'],
  [
    'hop-by-hop',
    'HTTP/1.1 200 OK\r\nx-upstream: bad\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\ncontent-length: 2\r\n\r\nok',
  ],
]);
