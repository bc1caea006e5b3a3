import { z } from 'zod';
import { formatCidr, isIp, parseCidr, parseIp } from '#api/address.ts';
import type { IntOrString, StringMap } from './objects.ts';
import { isRecord } from './plain-value.ts';

const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const DNS_SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const LABEL_NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;

const knownButUnused = new WeakMap<z.core.$ZodType, ReadonlySet<string>>();

/**
 * A map with fields. `unused` are further fields that exist in the kind, whose values nothing here reads: they are
 * neither checked nor kept. All others are unknown, which {@link ./unknown-fields.ts} reports.
 */
export function fields<Shape extends z.core.$ZodLooseShape>(
  shape: Shape,
  unused: readonly string[] = [],
): z.ZodObject<Shape, z.core.$strip> {
  const schema = z.object(shape);
  knownButUnused.set(schema, new Set(unused));
  return schema;
}

/** Fields of a {@link fields} schema that are known and not read. */
export function unusedFields(schema: z.core.$ZodType): ReadonlySet<string> {
  return knownButUnused.get(schema) ?? new Set();
}

/** Text that is not empty. */
export const filledText: z.ZodType<string> = z.string().min(1, 'is empty');

/** A list of texts, none of them empty. */
export const texts: z.ZodType<readonly string[]> = z.array(filledText);

/** 1 to 65535. */
export const portNumber: z.ZodType<number> = z.int().superRefine((value, context) => {
  if (value < 1 || value > 65_535) context.addIssue(`${value} is not a port; ports are 1 to 65535`);
});

/** A port as policies have it: a number in quotes. */
export const portText: z.ZodType<string> = z.string().superRefine((text, context) => {
  if (!/^[1-9]\d{0,4}$/.test(text) || Number(text) > 65_535)
    context.addIssue(`${shown(text)} is not a port; ports are 1 to 65535`);
});

/** A port by number or by name (at most 15 letters, digits and `-`). */
export const portReference: z.ZodType<IntOrString> = z.union([portNumber, filledText], {
  error: 'is no port; write a number from 1 to 65535 or the name of a container port',
});

/** An IP address, made canonical. */
export const ipText: z.ZodType<string> = z.string().transform((text, context) => {
  if (isIp(text)) return parseIp(text);
  context.addIssue(`${JSON.stringify(text)} is not an IP address`);
  return z.NEVER;
});

/** An IP address or a CIDR, made canonical; the prefix length stays as it was written, or away. */
export const ipBlock: z.ZodType<string> = z.string().transform((text, context) => {
  try {
    return text.includes('/') ? formatCidr(parseCidr(text)) : parseIp(text);
  } catch {
    const message = `${JSON.stringify(text)} is neither an IP address nor a CIDR such as 10.0.0.0/8`;
    context.addIssue(message);
    return z.NEVER;
  }
});

/** The name of a namespace or a service: at most 63 of `a-z0-9-`. */
export const dnsLabel: z.ZodType<string> = z.string().superRefine((text, context) => {
  if (DNS_LABEL.test(text)) return;
  const rule = 'at most 63 lower-case letters, digits and -, with a letter or digit at both ends';
  context.addIssue(`${shown(text)} is not a name: ${rule}`);
});

/** The name of any other object: labels joined by dots, at most 253 characters. */
export const dnsSubdomain: z.ZodType<string> = z.string().superRefine((text, context) => {
  if (text.length <= 253 && DNS_SUBDOMAIN.test(text)) return;
  const rule =
    'at most 253 lower-case letters, digits, - and ., with a letter or digit at both ends of each part';
  context.addIssue(`${shown(text)} is not a name: ${rule}`);
});

/** Any map of texts. */
export const annotations: z.ZodType<StringMap> = stringMap(() => undefined);

/** Labels, and selectors on them: Kubernetes' grammar for keys and values. */
export const labels: z.ZodType<StringMap> = stringMap((key, value) => {
  const slash = key.lastIndexOf('/');
  const prefix = slash < 0 ? undefined : key.slice(0, slash);
  const isKey =
    LABEL_NAME.test(key.slice(slash + 1)) &&
    (prefix === undefined || (prefix.length <= 253 && DNS_SUBDOMAIN.test(prefix)));
  if (!isKey) return { message: `${shown(key)} is not a label`, atKey: true };
  if (value === '' || LABEL_NAME.test(value)) return undefined;
  const rule = 'at most 63 letters, digits, -, _ and ., with a letter or digit at both ends';
  return { message: `${shown(value)} is not the value of a label: ${rule}`, atKey: false };
});

function stringMap(
  check: (key: string, value: string) => { readonly message: string; readonly atKey: boolean } | undefined,
): z.ZodType<StringMap> {
  return z.unknown().transform((written, context) => {
    if (!isRecord(written)) {
      context.issues.push({ code: 'invalid_type', expected: 'record', input: written });
      return z.NEVER;
    }
    const map = new Map<string, string>();
    for (const [key, value] of Object.entries(written)) {
      const fault = typeof value === 'string' ? check(key, value) : undefined;
      if (typeof value !== 'string')
        context.issues.push({ code: 'invalid_type', expected: 'string', input: value, path: [key] });
      else if (fault === undefined) map.set(key, value);
      else {
        const { message, atKey } = fault;
        context.issues.push({ code: 'custom', input: value, path: [key], message, params: { atKey } });
      }
    }
    return map;
  });
}

/** Text from outside, short enough for a message. */
export function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
