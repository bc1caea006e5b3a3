import { setTimeout as delay } from 'node:timers/promises';
import type { Field } from '../case.ts';
import type { Step } from './script.ts';

/** How an application answers, whatever the version of HTTP. */
export interface Reply {
  readonly isHead: boolean;
  readonly isGrpc: boolean;
  /** The proxy waits no longer. */
  readonly isGone: () => boolean;
  /** `length` undefined: of unknown length. */
  readonly head: (status: number, fields: readonly Field[], length: number | undefined) => void;
  readonly write: (text: string) => void;
  readonly end: (trailers: readonly Field[]) => void;
  readonly inform: () => void;
  readonly reset: () => void;
  /** FIN where there is one. */
  readonly close: () => void;
  readonly refuse: () => void;
  /** Only in HTTP/1. */
  readonly raw: (name: string) => void;
}

/** Between the first bytes of an answer and its end that comes too early. */
const HALF_MS = 50;
const GRPC_MESSAGE = '\0\0\0\0\0';

/** What every answer carries, for filters to work on. */
export function answerFields(app: string, endpoint: string): readonly Field[] {
  return [
    ['x-upstream', app],
    ['x-endpoint', endpoint],
    ['content-type', 'text/plain'],
    ['x-from-app', 'first'],
    ['x-from-app', 'second'],
    ['x-drop', 'please'],
    ['set-cookie', 'app=1'],
    ['set-cookie', 'app=2'],
  ];
}

/** Goes through the steps of one attempt. */
export async function answer(
  reply: Reply,
  app: string,
  endpoint: string,
  steps: readonly Step[],
): Promise<void> {
  const fields = [...answerFields(app, endpoint)];
  let last: Last = { kind: 'status', argument: '200' };
  for (const step of steps) {
    const { kind, argument } = step;
    if (kind === 'slow') await delay(Number(argument));
    else if (kind === 'header')
      fields.push([argument.split('=')[0] ?? '', argument.slice(argument.indexOf('=') + 1)]);
    else if (kind === 'hints') reply.inform();
    else last = { kind, argument };
  }
  if (!reply.isGone()) finish(reply, app, fields, last);
}

type Last = Step & { readonly kind: Exclude<Step['kind'], 'slow' | 'header' | 'hints'> };

function finish(reply: Reply, app: string, fields: readonly Field[], step: Last): void {
  const acts: { readonly [kind in Last['kind']]: () => void } = {
    reset: reply.reset,
    close: reply.close,
    refuse: reply.refuse,
    hang: () => undefined,
    raw: () => reply.raw(step.argument),
    grpc: () => finishGrpc(reply, fields, Number(step.argument), false),
    'grpc-late': () => finishGrpc(reply, fields, Number(step.argument), true),
    status: () => finishStatus(reply, app, fields, Number(step.argument)),
    bytes: () => whole(reply, 200, fields, 'x'.repeat(Number(step.argument))),
    trailers: () => {
      if (reply.isHead) return whole(reply, 200, fields, ''); // to HEAD there are none
      reply.head(200, [...fields, ['trailer', 'x-trailer']], undefined);
      reply.write('with trailers\n');
      reply.end([['x-trailer', 'yes']]);
    },
    half: () => {
      begin(reply, fields);
      setTimeout(reply.close, HALF_MS);
    },
    'half-reset': () => {
      begin(reply, fields);
      setTimeout(reply.reset, HALF_MS);
    },
    stall: () => begin(reply, fields),
  };
  acts[step.kind]();
}

/** Half of what is promised. */
function begin(reply: Reply, fields: readonly Field[]): void {
  reply.head(200, fields, 20);
  reply.write('ten bytes.');
}

function finishStatus(reply: Reply, app: string, fields: readonly Field[], status: number): void {
  if (reply.isGrpc && status === 200) finishGrpc(reply, fields, 0, true);
  else whole(reply, status, fields, `${app} answers ${status}\n`);
}

function finishGrpc(reply: Reply, fields: readonly Field[], status: number, late: boolean): void {
  const own = [
    ...fields.filter(([name]) => name !== 'content-type'),
    ['content-type', 'application/grpc'] as const,
  ];
  const trailers: readonly Field[] = [
    ['grpc-status', `${status}`],
    ['grpc-message', status === 0 ? 'fine' : 'as told'],
  ];
  if (!late) {
    reply.head(200, [...own, ...trailers], undefined);
    reply.end([]);
    return;
  }
  reply.head(200, own, undefined);
  reply.write(GRPC_MESSAGE);
  reply.end(trailers);
}

function whole(reply: Reply, status: number, fields: readonly Field[], body: string): void {
  const hasBody = status !== 204 && status !== 304;
  reply.head(status, fields, hasBody ? Buffer.byteLength(body) : undefined);
  if (hasBody && !reply.isHead) reply.write(body);
  reply.end([]);
}
