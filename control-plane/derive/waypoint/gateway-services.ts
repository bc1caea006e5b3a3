import type { GatewayObject, ServiceObject } from '../../source/objects.ts';

/** Classes whose Gateways are waypoints, whether or not anything has given them an address yet. */
const OWN_CLASS = 'tulle-waypoint';
const WAYPOINT_CLASSES: ReadonlySet<string> = new Set(['istio-waypoint', OWN_CLASS]);
const GATEWAY_NAME = 'gateway.networking.k8s.io/gateway-name';

/** Of a waypoint: whether it is ready, and where connections come in. */
const PORTS: ServiceObject['spec']['ports'] = [
  { name: 'status-port', port: 15021, protocol: 'TCP' },
  { name: 'mesh', port: 15008, protocol: 'TCP', appProtocol: 'hbone' },
];

/** A class by the name that Tulle has for it: the waypoints of the field's are read as ours. */
export function canonicalClass(name: string): string {
  return WAYPOINT_CLASSES.has(name) ? OWN_CLASS : name;
}

/** Whether a Gateway is a waypoint for us to run: of a class of ours, also by its name in the field. */
export function isOwnGateway({ spec }: GatewayObject): boolean {
  return WAYPOINT_CLASSES.has(spec.gatewayClassName);
}

/**
 * Services of waypoints for which none is written, as a cluster's controller would make them, so that `NAME.NAMESPACE.svc` is found and
 * leads to the waypoint's pods. One whose Gateway has an address is somebody
 * else's to run.
 */
export function synthesizeServices(
  gateways: readonly GatewayObject[],
  services: readonly ServiceObject[],
): readonly ServiceObject[] {
  const written = new Set(services.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`));
  return gateways
    .filter(
      (gateway) =>
        isOwnGateway(gateway) &&
        gateway.status.addresses.length === 0 &&
        !written.has(`${gateway.metadata.namespace}/${gateway.metadata.name}`),
    )
    .map(toService);
}

function toService({ metadata, position }: GatewayObject): ServiceObject {
  const { name, namespace, creationTimestampMs } = metadata;
  return {
    kind: 'Service',
    metadata: {
      name,
      namespace,
      labels: new Map([
        [GATEWAY_NAME, name],
        ['gateway.istio.io/managed', 'istio.io-mesh-controller'],
      ]),
      annotations: new Map([['networking.istio.io/traffic-distribution', 'PreferClose']]),
      ...(creationTimestampMs !== undefined && { creationTimestampMs }),
      ownerReferences: [{ kind: 'Gateway', name, controller: true }],
    },
    position,
    positionOf: () => position,
    spec: {
      type: 'ClusterIP',
      clusterIPs: [],
      ipFamilies: [],
      selector: new Map([[GATEWAY_NAME, name]]),
      ports: PORTS,
      publishNotReadyAddresses: false,
    },
  };
}
