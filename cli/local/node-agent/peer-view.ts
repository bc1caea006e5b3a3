import { ADDRESS_TYPE, type ResourceUpdate } from '#api/resource.ts';
import type { Facts } from './decide.ts';

/** How the workload API says that each pod is reached, and since when. */
export interface PeerView {
  /** Takes an update of the workload API at that time (milliseconds, never going back). */
  readonly apply: (update: ResourceUpdate, nowMs: number) => void;
  /** Undefined until the API has said anything at all. */
  readonly told: (pod: { readonly namespace: string; readonly name: string }) => Facts['told'];
}

/** Starts with nothing said. */
export function createPeerView(): PeerView {
  const byName = new Map<string, NonNullable<Facts['told']>>();
  const keys = new Map<string, string>();
  let syncedAtMs: number | undefined;
  return {
    apply: (update, nowMs) => {
      if (update.type !== ADDRESS_TYPE) return;
      syncedAtMs ??= nowMs;
      for (const resource of update.updated) {
        if (resource.kind !== 'workload') continue;
        const key = `${resource.namespace}/${resource.name}`;
        keys.set(resource.uid, key);
        if (byName.get(key)?.tunnel === resource.tunnelProtocol) continue;
        byName.set(key, { tunnel: resource.tunnelProtocol, sinceMs: nowMs });
      }
      for (const uid of update.removed) {
        byName.delete(keys.get(uid) ?? '');
        keys.delete(uid);
      }
    },
    told: ({ namespace, name }) => {
      const told = byName.get(`${namespace}/${name}`);
      if (told !== undefined || syncedAtMs === undefined) return told;
      return { tunnel: 'NONE', sinceMs: syncedAtMs }; // nobody can tunnel to what is not there
    },
  };
}
