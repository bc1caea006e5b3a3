import { parse } from 'yaml';
import type { GatewayObject } from '../../source/objects.ts';
import type { Context } from '../context.ts';
import { problemAt } from '../problems.ts';
import { isOwnGateway } from './gateway-services.ts';

/** A waypoint that is to run. */
export interface WantedWaypoint {
  readonly namespace: string;
  readonly name: string;
  /** It has an identity of its own, named like its Gateway. */
  readonly serviceAccount: string;
  readonly replicas: number;
}

const PARAMETERS = 'spec.infrastructure.parametersRef';
const MAX_REPLICAS = 100;

/** Every waypoint of a class of ours, in order of its name. */
export function wantWaypoints(context: Context): readonly WantedWaypoint[] {
  const wanted = [...context.waypoints.byKey.values()]
    .filter(({ gateway }) => isOwnGateway(gateway))
    .map(({ key, gateway }) => {
      const { namespace, name } = gateway.metadata;
      return {
        key,
        waypoint: { namespace, name, serviceAccount: name, replicas: replicasOf(context, gateway) },
      };
    });
  return wanted.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ waypoint }) => waypoint);
}

/** `spec.replicas` in the YAML under key `deployment` of the ConfigMap that the Gateway names; 1 where it is not written. */
function replicasOf(context: Context, gateway: GatewayObject): number {
  const { parametersRef } = gateway.spec;
  if (parametersRef === undefined) return 1;
  const replicas = readReplicas(context, gateway, parametersRef);
  if (typeof replicas === 'number') return replicas;
  context.report(
    problemAt(gateway, {
      path: PARAMETERS,
      message: replicas,
      severity: 'error',
      effect: 'one replica runs',
    }),
  );
  return 1;
}

/** The number, or what is wrong. */
function readReplicas(
  { inventory }: Context,
  { metadata: { namespace } }: GatewayObject,
  { group, kind, name }: NonNullable<GatewayObject['spec']['parametersRef']>,
): number | string {
  if (group !== '' || kind !== 'ConfigMap')
    return `${kind} ${name} cannot be read; name a ConfigMap (group "")`;
  const object = inventory.configMaps.find(
    ({ metadata }) => metadata.namespace === namespace && metadata.name === name,
  );
  if (object === undefined) return `there is no ConfigMap ${namespace}/${name}`;
  const text = object.data.get('deployment');
  if (text === undefined) return 1;
  const where = `ConfigMap ${namespace}/${name}, key deployment`;
  try {
    const replicas = fieldOf(fieldOf(parse(text, { logLevel: 'error' }), 'spec'), 'replicas') ?? 1;
    return typeof replicas === 'number' &&
      Number.isInteger(replicas) &&
      replicas >= 0 &&
      replicas <= MAX_REPLICAS
      ? replicas
      : `${where}: spec.replicas has to be a whole number from 0 to ${MAX_REPLICAS}`;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n', 1)[0] : String(error);
    return `${where}: not YAML: ${reason}`;
  }
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}
