import { z } from 'zod';
import { count, headerName, headerValue, newPathFault, preciseHostname, textUpTo } from './gateway-words.ts';
import type { HttpHeader } from './route-objects.ts';
import { fields, portNumber } from './schema-parts.ts';
import { backendReference, type WrittenBackendRef } from './schema-route-parts.ts';

/** A filter as it is written: `type`, and the field of that type. */
export interface WrittenFilter {
  readonly type: string;
  readonly requestHeaderModifier?: WrittenHeaderFilter;
  readonly responseHeaderModifier?: WrittenHeaderFilter;
  readonly requestMirror?: WrittenMirror;
  readonly requestRedirect?: WrittenRedirect;
  readonly urlRewrite?: WrittenRewrite;
  readonly cors?: WrittenCors;
}

/** @see WrittenFilter */
export interface WrittenHeaderFilter {
  readonly set: readonly HttpHeader[];
  readonly add: readonly HttpHeader[];
  readonly remove: readonly string[];
}

/** @see WrittenFilter */
export interface WrittenMirror {
  readonly backendRef: WrittenBackendRef;
  readonly percent?: number;
  readonly fraction?: { readonly numerator: number; readonly denominator: number };
}

/** A path modifier as it is written. */
export interface WrittenPath {
  readonly type: string;
  readonly replaceFullPath?: string;
  readonly replacePrefixMatch?: string;
}

/** @see WrittenFilter */
export interface WrittenRedirect {
  readonly scheme?: string;
  readonly hostname?: string;
  readonly path?: WrittenPath;
  readonly port?: number;
  readonly statusCode: number;
}

/** @see WrittenFilter */
export interface WrittenRewrite {
  readonly hostname?: string;
  readonly path?: WrittenPath;
}

/** @see WrittenFilter */
export interface WrittenCors {
  readonly allowOrigins: readonly string[];
  readonly allowCredentials: boolean;
  readonly allowMethods: readonly string[];
  readonly allowHeaders: readonly string[];
  readonly exposeHeaders: readonly string[];
  readonly maxAge: number;
}

const header: z.ZodType<HttpHeader> = fields({ name: headerName, value: headerValue });

const headers = z
  .array(header)
  .max(16)
  .default([])
  .superRefine((list, context) => {
    const seen = new Set<string>();
    for (const [index, { name }] of list.entries()) {
      const key = name.toLowerCase();
      if (seen.has(key))
        context.addIssue({ code: 'custom', path: [index, 'name'], message: 'is there twice' });
      seen.add(key);
    }
  });

const headerFilter: z.ZodType<WrittenHeaderFilter> = fields({
  set: headers,
  add: headers,
  remove: z.array(headerName).max(16).default([]),
});

const mirror: z.ZodType<WrittenMirror> = fields({
  backendRef: backendReference,
  percent: z.int().min(0, 'must not be negative').max(100, 'is more than 100').exactOptional(),
  fraction: fields({
    numerator: z.int().min(0, 'must not be negative'),
    denominator: z.int().min(1, 'must be at least 1').default(100),
  })
    .superRefine(({ numerator, denominator }, context) => {
      const message = 'must not be more than the denominator';
      if (numerator > denominator) context.addIssue({ code: 'custom', path: ['numerator'], message });
    })
    .exactOptional(),
}).superRefine(({ percent, fraction }, context) => {
  const message = 'cannot stand beside percent; write one of the two';
  if (percent !== undefined && fraction !== undefined)
    context.addIssue({ code: 'custom', path: ['fraction'], message });
});

const PATH_FIELDS = [
  ['ReplaceFullPath', 'replaceFullPath'],
  ['ReplacePrefixMatch', 'replacePrefixMatch'],
] as const;

/** A path to be put in the place of another; without text it takes a prefix away. */
function newPath(mayBeEmpty: boolean): z.ZodType<string> {
  return z
    .string()
    .max(1024, 'is longer than 1024 characters')
    .superRefine((text, context) => {
      const message = text === '' && mayBeEmpty ? undefined : newPathFault(text);
      if (message !== undefined) context.addIssue(message);
    });
}

const pathModifier: z.ZodType<WrittenPath> = fields({
  type: z.string(),
  replaceFullPath: newPath(false).exactOptional(),
  replacePrefixMatch: newPath(true).exactOptional(),
}).superRefine((path, context) => {
  for (const [type, field] of PATH_FIELDS) fieldOfType(context, { type, field, ...described(path, field) });
});

const redirect: z.ZodType<WrittenRedirect> = fields({
  scheme: z.string().exactOptional(),
  hostname: preciseHostname.exactOptional(),
  path: pathModifier.exactOptional(),
  port: portNumber.exactOptional(),
  statusCode: z.int().default(302),
});

const rewrite: z.ZodType<WrittenRewrite> = fields({
  hostname: preciseHostname.exactOptional(),
  path: pathModifier.exactOptional(),
});

const ORIGIN = /^(\*|[a-zA-Z][a-zA-Z0-9+.-]+:\/\/[^:/?#]+(:\d{1,5})?)$/;

const origin = textUpTo(253).superRefine((text, context) => {
  if (!ORIGIN.test(text))
    context.addIssue(`${JSON.stringify(text)} is not an origin such as https://shop.example or *`);
});

function words(item: z.ZodType<string>, most: number): z.ZodType<readonly string[]> {
  return z
    .array(item)
    .max(most)
    .default([])
    .superRefine((list, context) => {
      if (list.includes('*') && list.length > 1) context.addIssue('has * beside others; write * alone');
      if (new Set(list).size < list.length) context.addIssue('has an entry twice');
    });
}

const cors: z.ZodType<WrittenCors> = fields({
  allowOrigins: words(origin, 64),
  allowCredentials: z.boolean().default(false),
  allowMethods: words(z.string(), 9),
  allowHeaders: words(headerName, 64),
  exposeHeaders: words(headerName, 64),
  maxAge: count.default(5),
});

const FILTER_FIELDS = [
  ['RequestHeaderModifier', 'requestHeaderModifier'],
  ['ResponseHeaderModifier', 'responseHeaderModifier'],
  ['RequestMirror', 'requestMirror'],
  ['RequestRedirect', 'requestRedirect'],
  ['URLRewrite', 'urlRewrite'],
  ['CORS', 'cors'],
  ['ExtensionRef', 'extensionRef'],
  ['ExternalAuth', 'externalAuth'],
] as const;

const filter = fields({
  type: z.string(),
  requestHeaderModifier: headerFilter.exactOptional(),
  responseHeaderModifier: headerFilter.exactOptional(),
  requestMirror: mirror.exactOptional(),
  requestRedirect: redirect.exactOptional(),
  urlRewrite: rewrite.exactOptional(),
  cors: cors.exactOptional(),
  extensionRef: z.unknown().optional(),
  externalAuth: z.unknown().optional(),
}).superRefine((value, context) => {
  for (const [type, field] of FILTER_FIELDS)
    fieldOfType(context, { type, field, ...described(value, field) });
});

const REPEATABLE: ReadonlySet<string> = new Set(['RequestMirror', 'ExtensionRef']);
const KNOWN: ReadonlySet<string> = new Set(FILTER_FIELDS.map(([type]) => type));

/** Filters of a rule or a backend, in order; which of the types are supported is not looked at. */
export const filters: z.ZodType<readonly WrittenFilter[]> = z
  .array(filter.transform(({ extensionRef: _1, externalAuth: _2, ...rest }): WrittenFilter => rest))
  .max(16)
  .default([])
  .superRefine((list, context) => {
    const seen = new Set<string>();
    for (const [index, { type }] of list.entries()) {
      const message = `${type} is there twice; write one filter with all of it`;
      if (seen.has(type) && KNOWN.has(type) && !REPEATABLE.has(type))
        context.addIssue({ code: 'custom', path: [index, 'type'], message });
      seen.add(type);
    }
  });

function described(value: { readonly type: string }, field: string): { wanted: string; isThere: boolean } {
  return { wanted: value.type, isThere: Object.hasOwn(value, field) };
}

/** The field of a type has to be there with that type, and only with it. */
function fieldOfType(
  context: z.RefinementCtx,
  {
    type,
    field,
    wanted,
    isThere,
  }: { readonly type: string; readonly field: string; readonly wanted: string; readonly isThere: boolean },
): void {
  if (wanted === type && !isThere)
    context.addIssue({ code: 'custom', path: [field], message: `is required with type ${type}` });
  if (wanted !== type && isThere)
    context.addIssue({ code: 'custom', path: [field], message: `goes with type ${type} only` });
}
