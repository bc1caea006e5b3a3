import { z } from 'zod';
import { groupName, kindName, preciseHostname, textUpTo } from './gateway-words.ts';
import { defineKind, type KindDefinition } from './kind.ts';
import type { BackendTlsPolicySpec } from './route-objects.ts';
import { dnsSubdomain, fields, filledText, shown } from './schema-parts.ts';
import { GATEWAY_GROUP } from './schema-route-parts.ts';

const target = fields({
  group: groupName,
  kind: kindName,
  name: dnsSubdomain,
  sectionName: filledText.exactOptional(),
});

const targets = z
  .array(target)
  .min(1, 'is empty; name a Service')
  .max(16)
  .superRefine((refs, context) => {
    const groups = Map.groupBy(refs.entries(), ([, { group, kind, name }]) => `${group}/${kind}/${name}`);
    for (const entries of groups.values()) {
      const seen = new Set<string | undefined>();
      for (const [index, { sectionName }] of entries) {
        const message = seen.has(sectionName)
          ? 'is there twice'
          : 'names a target that is there more than once: each of them needs a sectionName';
        const isFault = seen.has(sectionName) || (entries.length > 1 && sectionName === undefined);
        if (isFault) context.addIssue({ code: 'custom', path: [index], message });
        seen.add(sectionName);
      }
    }
  });

const ABSOLUTE_URI = /^[A-Za-z][A-Za-z0-9+.-]*:\S+$/;

const subjectAltName = fields({
  type: z.enum(['Hostname', 'URI']),
  hostname: textUpTo(253).exactOptional(),
  uri: textUpTo(253).exactOptional(),
}).transform(({ type, hostname, uri }, context) => {
  const [field, value, other] = type === 'URI' ? ['uri', uri, hostname] : ['hostname', hostname, uri];
  const otherField = type === 'URI' ? 'hostname' : 'uri';
  const issue = (path: string, message: string): void =>
    void context.issues.push({ code: 'custom', input: value, path: [path], message });
  if (value === undefined) issue(String(field), `is required with type ${type}`);
  else if (type === 'URI' && !ABSOLUTE_URI.test(value))
    issue('uri', `${shown(value)} is not an absolute URI`);
  if (other !== undefined) issue(otherField, `does not go with type ${type}`);
  return { type, value: value ?? '' };
});

const validation = fields({
  caCertificateRefs: z
    .array(fields({ group: groupName, kind: kindName, name: dnsSubdomain }))
    .max(8)
    .default([]),
  wellKnownCACertificates: z.string().exactOptional(),
  hostname: preciseHostname,
  subjectAltNames: z.array(subjectAltName).max(5).default([]),
})
  .superRefine(({ caCertificateRefs, wellKnownCACertificates: known = '' }, context) => {
    if (caCertificateRefs.length > 0 && known !== '')
      context.addIssue('has both caCertificateRefs and wellKnownCACertificates; write one of the two');
    if (caCertificateRefs.length === 0 && known === '')
      context.addIssue('needs caCertificateRefs or wellKnownCACertificates');
  })
  .transform(({ wellKnownCACertificates: known = '', ...rest }) => ({
    ...rest,
    ...(known !== '' && { wellKnownCaCertificates: known }),
  }));

const spec: z.ZodType<BackendTlsPolicySpec> = fields({ targetRefs: targets, validation }, ['options']);

/** BackendTLSPolicy. */
export const backendTlsKind: KindDefinition = defineKind({
  kind: 'BackendTLSPolicy',
  group: GATEWAY_GROUP,
  versions: ['v1', 'v1alpha3', 'v1alpha2'],
  isStrict: true,
  body: { spec },
  unused: ['status'],
});
