import type { Service } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { type Identity, IdentityError, identitiesEqual, parseIdentity } from '#certs/identity.ts';

/** The identity of a workload. */
export function identityOf({ trustDomain, namespace, serviceAccount }: Workload): Identity {
  return { trustDomain, namespace, serviceAccount };
}

/** Who may answer for a workload of a service: the workload itself, and whom the service names besides. */
export function expectedIdentities(workload: Workload, service: Service | undefined): readonly Identity[] {
  const own = identityOf(workload);
  if (service === undefined || service.subjectAltNames.length === 0) return [own];
  return [...alternativesOf(service).filter((each) => !identitiesEqual(each, own)), own];
}

const ALTERNATIVES = new WeakMap<Service, readonly Identity[]>();

/** Names that are no SPIFFE ID of a workload cannot be met by anyone and are left out. */
function alternativesOf(service: Service): readonly Identity[] {
  const known = ALTERNATIVES.get(service);
  if (known !== undefined) return known;
  const parsed = service.subjectAltNames.flatMap((name) => tryParse(name) ?? []);
  ALTERNATIVES.set(service, parsed);
  return parsed;
}

function tryParse(name: string): Identity | undefined {
  try {
    return parseIdentity(name);
  } catch (error) {
    if (error instanceof IdentityError) return undefined;
    throw error;
  }
}
