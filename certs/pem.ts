const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/** The certificates of a PEM bundle, one by one and in order; text between them is left out. */
export function splitPem(bundle: string): readonly string[] {
  return bundle.match(CERTIFICATE)?.map((pem) => `${pem}\n`) ?? [];
}

/** Text form of DER (RFC 7468). */
export function toPem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n');
}

/** The bytes of text that is one PEM block with that label and nothing else; undefined when it is not. */
export function derOfPem(label: string, pem: string): Uint8Array | undefined {
  const text = pem.trim();
  const head = `-----BEGIN ${label}-----`;
  const foot = `-----END ${label}-----`;
  if (!text.startsWith(head) || !text.endsWith(foot)) return undefined;
  const body = text.slice(head.length, -foot.length).replace(/\s/g, '');
  return /^[A-Za-z0-9+/]+={0,2}$/.test(body) ? Buffer.from(body, 'base64') : undefined;
}
