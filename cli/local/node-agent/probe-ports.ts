import { z } from 'zod';

/** What counts here of a container in a Pod object. */
export interface ProbedContainer {
  readonly ports?:
    | readonly { readonly name?: string | undefined; readonly containerPort: number }[]
    | undefined;
  readonly livenessProbe?: ProbeObject | undefined;
  readonly readinessProbe?: ProbeObject | undefined;
  readonly startupProbe?: ProbeObject | undefined;
}

interface ProbeObject {
  readonly httpGet?: NamedOrNumber | undefined;
  readonly tcpSocket?: NamedOrNumber | undefined;
  readonly grpc?: { readonly port: number } | undefined;
}

interface NamedOrNumber {
  readonly port: number | string;
}

const NAMED_OR_NUMBER: z.ZodType<NamedOrNumber> = z.object({ port: z.union([z.number(), z.string()]) });
const PROBE: z.ZodType<ProbeObject> = z.object({
  httpGet: NAMED_OR_NUMBER.optional(),
  tcpSocket: NAMED_OR_NUMBER.optional(),
  grpc: z.object({ port: z.number() }).optional(),
});

export const PROBED_CONTAINER: z.ZodType<ProbedContainer> = z.object({
  ports: z.array(z.object({ name: z.string().optional(), containerPort: z.number() })).optional(),
  livenessProbe: PROBE.optional(),
  readinessProbe: PROBE.optional(),
  startupProbe: PROBE.optional(),
});

/** Ports on which a kubelet would probe those containers, each once, sorted; a name that no port has is left out. */
export function probePortsOf(containers: readonly ProbedContainer[]): readonly number[] {
  const ports = containers.flatMap((container) =>
    [container.livenessProbe, container.readinessProbe, container.startupProbe]
      .map((probe) => probe?.httpGet?.port ?? probe?.tcpSocket?.port ?? probe?.grpc?.port)
      .flatMap((port) => (typeof port === 'string' ? numberOf(container, port) : port) ?? []),
  );
  return [...new Set(ports.filter(isPort))].sort((a, b) => a - b);
}

function numberOf({ ports }: ProbedContainer, name: string): number | undefined {
  return ports?.find((port) => port.name === name)?.containerPort;
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65_535;
}
