/** A workload's SPIFFE identity in the field's Kubernetes form: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. */
export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Thrown for text that is not such an ID; `code` is stable. */
export class IdentityError extends Error {
  override readonly name = 'IdentityError';
  readonly code = 'INVALID_SPIFFE_ID';
}

const SPIFFE_ID = /^spiffe:\/\/([a-z0-9._-]{1,255})\/ns\/([A-Za-z0-9._-]+)\/sa\/([A-Za-z0-9._-]+)$/;

/**
 * Parses a SPIFFE ID (SPIFFE-ID.md, sections 2.1 to 2.3): no percent encoding, port, query, empty or dot segment,
 * at most 2048 bytes.
 * @throws IdentityError
 */
export function parseIdentity(text: string): Identity {
  const [, trustDomain, namespace, serviceAccount] = SPIFFE_ID.exec(text) ?? [];
  if (
    text.length > 2048 ||
    trustDomain === undefined ||
    namespace === undefined ||
    serviceAccount === undefined ||
    isDotSegment(namespace) ||
    isDotSegment(serviceAccount)
  ) {
    throw new IdentityError(
      `not a SPIFFE ID of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>: ${JSON.stringify(text.slice(0, 300))}`,
    );
  }
  return { trustDomain, namespace, serviceAccount };
}

/** `spiffe://cluster.local/ns/shop/sa/web`. */
export function formatIdentity(identity: Identity): string {
  return `spiffe://${principalOf(identity)}`;
}

/** The identity as policies write it, without the scheme: `cluster.local/ns/shop/sa/web`. */
export function principalOf(identity: Identity): string {
  return `${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}`;
}

/** Whether all three parts are equal. */
export function identitiesEqual(a: Identity, b: Identity): boolean {
  return (
    a.trustDomain === b.trustDomain && a.namespace === b.namespace && a.serviceAccount === b.serviceAccount
  );
}

function isDotSegment(segment: string): boolean {
  return segment === '.' || segment === '..';
}
