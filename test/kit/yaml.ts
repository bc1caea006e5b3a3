/** A Namespace, in the mesh or not. */
export function namespaceYaml(name: string, ambient: boolean, labels = ''): string {
  const mode = ambient ? 'istio.io/dataplane-mode: ambient' : '';
  const all = [mode, labels].filter((text) => text !== '').join(', ');
  return `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}, labels: {${all}}}\n---\n`;
}

/** A Service that selects `app: NAME`, port 8080 for HTTP and 9000 for TCP. */
export function serviceYaml(namespace: string, name: string, labels = ''): string {
  return `apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: ${namespace}, labels: {${labels}}}
spec: {selector: {app: ${name}}, ports: [{name: http, port: 8080}, {name: tcp, port: 9000}]}
---
`;
}

/** The label of what is called through the {@link waypointYaml waypoint} of its namespace. */
export const BEHIND_WAYPOINT = 'istio.io/use-waypoint: waypoint';

/** The Gateway that has a waypoint started, `waypoint`. */
export function waypointYaml(namespace: string): string {
  return `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: ${namespace}}
spec: {gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
`;
}

/** An AuthorizationPolicy with the given spec in flow style. */
export function policyYaml(namespace: string, name: string, spec: string, annotations = ''): string {
  return `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ${name}, namespace: ${namespace}, annotations: {${annotations}}}
spec: ${spec}
---
`;
}

/** A PeerAuthentication with the given spec in flow style. */
export function peerAuthenticationYaml(namespace: string, name: string, spec: string): string {
  return `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ${name}, namespace: ${namespace}}
spec: ${spec}
---
`;
}
