import { SECRET_TYPE } from '#api/envoy/types.ts';
import { serveBytes } from './served-snapshot.ts';
import { resourcesOf, type ServedResource, type ServedView } from './served-view.ts';

/** Adds the secrets that everyone may ask for to what each caller sees. */
export class MeshSecrets {
  #secrets: ReadonlyMap<string, ServedResource> = new Map();
  /** Views with them; the same object for the same view, as steps between views are worked out once. */
  #views = new WeakMap<ServedView, ServedView>();
  /** Secrets of a view with those of the mesh; the same map for the same secrets. */
  #maps = new WeakMap<ReadonlyMap<string, ServedResource>, ReadonlyMap<string, ServedResource>>();

  /** By name, the message of each. */
  set(secrets: ReadonlyMap<string, Uint8Array>): void {
    this.#secrets = new Map(
      [...secrets].map(([name, value]) => [
        name,
        serveBytes(SECRET_TYPE, name, value, this.#secrets.get(name)),
      ]),
    );
    this.#views = new WeakMap();
    this.#maps = new WeakMap();
  }

  addTo(view: ServedView): ServedView {
    const known = this.#views.get(view);
    if (known) return known;
    const own = resourcesOf(view, SECRET_TYPE);
    const secrets = this.#maps.get(own) ?? new Map([...own, ...this.#secrets]);
    this.#maps.set(own, secrets);
    const whole = { ...view, [SECRET_TYPE]: secrets };
    this.#views.set(view, whole);
    return whole;
  }
}
