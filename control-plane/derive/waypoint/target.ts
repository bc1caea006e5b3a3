import type { ServicePort } from '#api/service.ts';
import type { ServiceInfo } from '../services.ts';
import { clusterName } from './names.ts';

/** A port of a service that some route sends to. */
export interface Target {
  readonly info: ServiceInfo;
  readonly port: ServicePort;
  /** Set where the port is declared to be HTTP/1.1 and gets calls of gRPC, which there are in HTTP/2 only. */
  readonly overHttp2?: true;
}

/** Name of the cluster of a target. */
export function targetName({ info, port, overHttp2 }: Target): string {
  return clusterName(info.service, port.servicePort, overHttp2);
}
