import {
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  type EnvoyResource,
  type EnvoyType,
  LISTENER_TYPE,
  ROUTE_TYPE,
  SECRET_TYPE,
} from '#api/envoy/types.ts';
import type { NamedResourceType, WaypointResourceType, WaypointUpdate } from '#api/envoy-client.ts';
import type { RejectedResource } from '#api/held-versions.ts';
import { AUTHORIZATION_TYPE } from '#api/resource.ts';
import { Authorizations } from './authorization.ts';
import { type ConfigStore, createConfigStore } from './config/store.ts';
import type { WaypointConfig } from './model.ts';

/** Resources of a type, and what became of them. */
export interface TypeCounts {
  readonly type: WaypointResourceType;
  readonly held: number;
  /** Resources that are refused, with the reason; their last good versions are in force. */
  readonly rejected: ReadonlyMap<string, string>;
}

const TYPES: readonly WaypointResourceType[] = [
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  SECRET_TYPE,
  AUTHORIZATION_TYPE,
  LISTENER_TYPE,
  ROUTE_TYPE,
];

/** What the control plane has said: the compiled model, the policies beside it, and the resources as they came. */
export class Configuration {
  readonly authorizations: Authorizations = new Authorizations();
  readonly #store: ConfigStore = createConfigStore();
  readonly #accepted = new Map<WaypointResourceType, Map<string, Uint8Array>>();
  readonly #rejected = new Map<WaypointResourceType, Map<string, string>>();
  readonly #answered = new Set<WaypointResourceType>();
  readonly #onChange: (config: WaypointConfig) => void;

  /** @param onChange told of each model that comes into force */
  constructor(onChange: (config: WaypointConfig) => void = () => undefined) {
    this.#onChange = onChange;
  }

  get current(): WaypointConfig {
    return this.#store.current();
  }

  /** Takes an update; gives back what it does not take. */
  apply(update: WaypointUpdate): readonly RejectedResource[] {
    const { type, updated, removed } = update;
    this.#answered.add(type);
    const before = this.#store.current();
    const rejected =
      type === AUTHORIZATION_TYPE
        ? this.authorizations.apply(update)
        : this.#store.apply({ type, updated, removed });
    this.#note(update, rejected);
    if (type === LISTENER_TYPE)
      this.authorizations.forgetAllBut(new Set(this.#store.interest().authorizations));
    if (this.#store.current() !== before) this.#onChange(this.#store.current());
    return rejected;
  }

  /** Names to subscribe to. */
  interest(): ReadonlyMap<NamedResourceType, ReadonlySet<string>> {
    const { routes, endpoints, secrets, authorizations } = this.#store.interest();
    return new Map<NamedResourceType, ReadonlySet<string>>([
      [ENDPOINT_TYPE, new Set(endpoints)],
      [SECRET_TYPE, new Set(secrets)],
      [AUTHORIZATION_TYPE, new Set(authorizations)],
      [ROUTE_TYPE, new Set(routes)],
    ]);
  }

  /** Whether all of what there is has been heard of: listeners, clusters, and everything that they name. */
  isComplete(): boolean {
    return (
      this.#answered.has(LISTENER_TYPE) && this.#answered.has(CLUSTER_TYPE) && this.missing().length === 0
    );
  }

  /** Names of what is mentioned and of which nothing has been heard. */
  missing(): readonly string[] {
    const { authorizations } = this.#store.interest();
    return [
      ...this.#store.missing(),
      ...authorizations.filter((name) => !this.authorizations.isAnswered(name)),
    ];
  }

  counts(): readonly TypeCounts[] {
    return TYPES.map((type) => ({
      type,
      held: this.#accepted.get(type)?.size ?? 0,
      rejected: this.#rejected.get(type) ?? new Map<string, string>(),
    }));
  }

  /** Envoy's resources as they are in force. */
  *resources(): Iterable<EnvoyResource> {
    for (const [type, byName] of this.#accepted) {
      if (!isEnvoyType(type)) continue;
      for (const [name, value] of byName) yield { type, name, value };
    }
  }

  #note({ type, updated, removed }: WaypointUpdate, rejections: readonly RejectedResource[]): void {
    const accepted = this.#accepted.get(type) ?? new Map<string, Uint8Array>();
    const rejected = this.#rejected.get(type) ?? new Map<string, string>();
    this.#accepted.set(type, accepted);
    this.#rejected.set(type, rejected);
    const reasons = new Map(rejections.map(({ name, reason }) => [name, reason]));
    for (const { name, value } of updated) {
      const reason = reasons.get(name);
      if (reason !== undefined) rejected.set(name, reason);
      else {
        accepted.set(name, value);
        rejected.delete(name);
      }
    }
    for (const name of removed) {
      accepted.delete(name);
      rejected.delete(name);
    }
  }
}

function isEnvoyType(type: WaypointResourceType): type is EnvoyType {
  return type !== AUTHORIZATION_TYPE;
}
