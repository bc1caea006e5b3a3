import { z } from 'zod';
import { duration, headerName } from './gateway-words.ts';
import { fields } from './schema-parts.ts';

/** A session persistence as it is written, also in the words of later versions (`cookie`, `header`). */
export interface WrittenSession {
  readonly type: string;
  readonly sessionName?: string;
  readonly absoluteTimeout?: number;
  readonly idleTimeout?: number;
  readonly cookieConfig?: WrittenCookie;
  readonly cookie?: WrittenCookie;
  readonly header?: { readonly name: string };
}

interface WrittenCookie {
  readonly name?: string;
  readonly path?: string;
  readonly lifetimeType?: string;
}

const cookie = fields({
  name: headerName.exactOptional(),
  path: z
    .string()
    .regex(/^\/[!-:<-~]*$/, 'is not a path')
    .exactOptional(),
  lifetimeType: z.string().exactOptional(),
});

/** @see WrittenSession */
export const sessionPersistence: z.ZodType<WrittenSession> = fields({
  type: z.string().default('Cookie'),
  sessionName: headerName.exactOptional(),
  absoluteTimeout: duration.exactOptional(),
  idleTimeout: duration.exactOptional(),
  cookieConfig: cookie.exactOptional(),
  cookie: cookie.exactOptional(),
  header: fields({ name: headerName }).exactOptional(),
}).superRefine(({ type, cookieConfig, cookie: newCookie, header: newHeader, absoluteTimeout }, context) => {
  const settings = newCookie ?? cookieConfig;
  const field = newCookie === undefined ? 'cookieConfig' : 'cookie';
  if (settings !== undefined && type !== 'Cookie')
    context.addIssue({ code: 'custom', path: [field], message: 'goes with type Cookie only' });
  if (newHeader !== undefined && type !== 'Header')
    context.addIssue({ code: 'custom', path: ['header'], message: 'goes with type Header only' });
  const message = 'is required for a cookie with lifetimeType Permanent';
  if (settings?.lifetimeType === 'Permanent' && absoluteTimeout === undefined)
    context.addIssue({ code: 'custom', path: ['absoluteTimeout'], message });
});
