import { type MeshObject, type ObjectKey, objectKey } from './objects.ts';

/** The mesh's settings. */
const SETTINGS: ObjectKey = 'ConfigMap istio-system/istio';

/** ConfigMaps that something names, which are the only ones that are read. */
export function namedConfigMaps(objects: Iterable<MeshObject>): ReadonlySet<ObjectKey> {
  const named = new Set([SETTINGS]);
  for (const object of objects)
    for (const { group, kind, name } of referencesOf(object))
      if (group === '' && kind === 'ConfigMap')
        named.add(objectKey({ kind, metadata: { name, namespace: object.metadata.namespace } }));
  return named;
}

type Reference = { readonly group: string; readonly kind: string; readonly name: string };

function referencesOf(object: MeshObject): readonly Reference[] {
  if (object.kind === 'BackendTLSPolicy') return object.spec.validation.caCertificateRefs;
  if (object.kind !== 'Gateway' || object.spec.parametersRef === undefined) return [];
  return [object.spec.parametersRef];
}
