import { isIp, parseIp } from '#api/address.ts';
import type { Frontend, FrontendIndex } from '../model.ts';
import type { CompiledListener } from './listener.ts';

/** Callers of every namespace that has no frontend of its own; no namespace has this name. */
const ALL = '';

/** Of two that serve the same, the one that comes later counts. */
export function indexFrontends(listeners: ReadonlyMap<string, CompiledListener>): FrontendIndex {
  const byAuthority = new Map<string, Map<string, Frontend>>();
  for (const { frontend, addresses } of listeners.values()) {
    for (const address of addresses) {
      const key = keyOf(address, frontend.port);
      const byNamespace = byAuthority.get(key) ?? new Map<string, Frontend>();
      byAuthority.set(key, byNamespace.set(frontend.consumerNamespace ?? ALL, frontend));
    }
  }
  const at = (host: string, port: number, namespace: string): Frontend | undefined => {
    const byNamespace = byAuthority.get(keyOf(host, port));
    return byNamespace?.get(namespace) ?? byNamespace?.get(ALL);
  };
  const frontends = [...listeners.values()].map((listener) => listener.frontend);
  return {
    find: (host, port, namespace = ALL) => at(host, port, namespace) ?? at(host, 0, namespace),
    named: (name) => listeners.get(name)?.frontend,
    all: () => frontends,
  };
}

function keyOf(host: string, port: number): string {
  if (host.includes(':') && isIp(host)) return `${parseIp(host)} ${port}`;
  const name = host.toLowerCase();
  return `${name.endsWith('.') ? name.slice(0, -1) : name} ${port}`;
}
