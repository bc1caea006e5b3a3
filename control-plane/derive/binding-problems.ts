import type { MeshObject } from '../source/objects.ts';
import type { Context } from './context.ts';
import { problemAt } from './problems.ts';
import { type Binding, USE_WAYPOINT_PATH } from './waypoint-binding.ts';

/** Reports a binding that does not hold, at the label that makes it; `fault` is what is wrong with the canary. */
export function reportBinding(context: Context, object: MeshObject, binding: Binding, fault?: string): void {
  if (binding.kind === 'none') return;
  const { namespace } = object.metadata;
  const holder = binding.level === 'namespace' ? context.inventory.namespaces.get(namespace) : undefined;
  const report = (message: string, effect: string): void =>
    context.report(
      problemAt(holder ?? object, { path: USE_WAYPOINT_PATH, message, severity: 'warning', effect }),
    );
  if (binding.kind === 'missing')
    report(
      `there is no waypoint ${binding.key}; make a Gateway of that name of class tulle-waypoint, or remove the label`,
      'connections to what is bound to it are refused',
    );
  if (binding.kind === 'refused') report(binding.reason, 'what is bound to it has no waypoint');
  if (fault !== undefined) report(fault, 'all connections go to the waypoint, none to its canary');
}
