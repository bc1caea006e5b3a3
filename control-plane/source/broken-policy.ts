import type { SourceDocument } from './documents.ts';
import { nearest } from './faults.ts';
import type { BrokenPolicy, TargetRef } from './objects.ts';
import { isRecord, valueAt } from './plain-value.ts';
import { dnsLabel, dnsSubdomain, labels } from './schema-parts.ts';
import { targetRef } from './schema-security.ts';

const KINDS = ['AuthorizationPolicy', 'PeerAuthentication', 'RequestAuthentication'] as const;

// For text so broken that even these cannot be parsed.
const KIND_LINE = /^[\s{]*["']?kind["']?:\s*["']?(\w+)/m;
const NAMESPACE_LINE = /^[\s{]*["']?namespace["']?:\s*["']?([\w.-]+)/m;

/** A document, or a part of one. */
type BrokenSource = Pick<SourceDocument, 'value' | 'locate' | 'isAmbiguous'> & { readonly text?: string };

/**
 * What a policy denies that could not be read, as far as its selection could be; undefined for what is not a policy or would not deny anything if it were read: audits, dry runs, and RequestAuthentications that are aimed at nothing that could be
 * read, as those without targets are for nobody.
 */
export function brokenPolicy(source: BrokenSource): BrokenPolicy | undefined {
  const { value, text = '' } = source;
  const kind = meantKind(value, text);
  if (kind === undefined || isHarmless(kind, value)) return undefined;
  const selection = source.isAmbiguous ? {} : readableSelection(kind, value);
  if (kind === 'RequestAuthentication' && selection.targetRefs === undefined) return undefined;
  const position = source.locate([], 'value');
  return {
    kind,
    name: nameIn(value) ?? `unnamed-${position.line}`,
    namespace: namespaceIn(value, text),
    position,
    ...selection,
  };
}

function meantKind(value: unknown, text: string): BrokenPolicy['kind'] | undefined {
  const written = textAt(value, ['kind']) ?? KIND_LINE.exec(text)?.[1] ?? '';
  const isOfGroup = textAt(value, ['apiVersion'])?.startsWith('security.istio.io/') ?? false;
  const meant = isOfGroup ? nearest(written, KINDS) : written;
  return KINDS.find((one) => one === meant);
}

function nameIn(value: unknown): string | undefined {
  return dnsSubdomain.safeParse(textAt(value, ['metadata', 'name'])).data;
}

function namespaceIn(value: unknown, text = ''): string {
  const written = textAt(value, ['metadata', 'namespace']) ?? NAMESPACE_LINE.exec(text)?.[1];
  return dnsLabel.safeParse(written?.toLowerCase()).data ?? 'default';
}

function isHarmless(kind: BrokenPolicy['kind'], value: unknown): boolean {
  if (kind === 'RequestAuthentication') return false;
  const isDryRun = valueAt(value, ['metadata', 'annotations', 'istio.io/dry-run']) === 'true';
  return isDryRun || valueAt(value, ['spec', 'action']) === 'AUDIT';
}

function readableSelection(
  kind: BrokenPolicy['kind'],
  value: unknown,
): Pick<BrokenPolicy, 'selector' | 'targetRefs'> {
  const isForTargets = kind === 'RequestAuthentication';
  const selector = isForTargets ? undefined : valueAt(value, ['spec', 'selector']);
  if (selector !== undefined) return readableSelector(selector);
  return readableTargets(valueAt(value, ['spec']), { own: namespaceIn(value), all: !isForTargets });
}

/** The labels that can be read select at least what all of them would. */
function readableSelector(written: unknown): Pick<BrokenPolicy, 'selector'> {
  const matchLabels = valueAt(written, ['matchLabels']);
  if (!isRecord(matchLabels)) return {};
  const readable = Object.entries(matchLabels).flatMap((entry) => {
    const { data } = labels.safeParse(Object.fromEntries([entry]));
    return [...(data ?? [])];
  });
  return readable.length === 0 ? {} : { selector: { matchLabels: new Map(readable) } };
}

/** Targets in the policy's own namespace; with `all` only if each that is written is one. */
function readableTargets(
  spec: unknown,
  { own, all }: { readonly own: string; readonly all: boolean },
): Pick<BrokenPolicy, 'targetRefs'> {
  const several = valueAt(spec, ['targetRefs']) ?? [];
  const single = valueAt(spec, ['targetRef']);
  if (!Array.isArray(several)) return {};
  const written: readonly unknown[] = single === undefined ? several : [...several, single];
  const targetRefs = written.flatMap((one): TargetRef[] => {
    const { data } = targetRef.safeParse(one);
    return data === undefined || (data.namespace ?? own) !== own ? [] : [data];
  });
  const isEnough = targetRefs.length > 0 && (!all || targetRefs.length === written.length);
  return isEnough ? { targetRefs } : {};
}

/** Text; also of a number that was meant to be text. */
function textAt(value: unknown, path: readonly string[]): string | undefined {
  const text = valueAt(value, path);
  return typeof text === 'string' || typeof text === 'number' ? String(text) : undefined;
}
