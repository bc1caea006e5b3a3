import type { NamedPort } from './names.ts';

/** Labels of a waypoint's pods, as the field has them: part of a Gateway, never enrolled. */
export function waypointLabels(gateway: string): Readonly<Record<string, string>> {
  return {
    'gateway.networking.k8s.io/gateway-name': gateway,
    'gateway.networking.k8s.io/gateway-class-name': 'tulle-waypoint',
    'gateway.istio.io/managed': 'istio.io-mesh-controller',
    'istio.io/dataplane-mode': 'none',
    'service.istio.io/canonical-name': gateway,
    'service.istio.io/canonical-revision': 'latest',
  };
}

/** Ports of a waypoint's pods. */
export function waypointPorts(): readonly NamedPort[] {
  return [
    { name: 'mesh', port: 15008 },
    { name: 'status-port', port: 15021 },
    { name: 'http-metrics', port: 15020 },
  ];
}
