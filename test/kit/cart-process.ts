import type { Socket } from 'node:net';
import type { HostPort } from '#api/address.ts';
import type { TemporaryAuthority } from '#certs/testing.ts';
import type { WorkerConfig } from '#ztunnel/worker-messages.ts';
import { type Application, startApplication } from './application.ts';
import { type CarrierProcess, startCarrierProcess } from './carrier-process.ts';
import { workload } from './resources.ts';

/** A byte worker in a process of its own that serves one pod, `cart`, and its application; disposing of it ends both. */
export interface CartProcess extends AsyncDisposable {
  readonly carrier: CarrierProcess;
  /** Where the pod's port 15008 really is. */
  readonly hbone: HostPort;
  readonly application: Application;
}

/** What of it is not as usual. */
export interface CartOptions {
  /** What the application does with a connection; default: it echoes. */
  readonly serve?: (socket: Socket) => void;
  readonly settings?: Partial<WorkerConfig>;
  readonly memoryBytes?: number;
}

/** Starts one. @param ip the pod's, of the loopback network */
export async function startCartProcess(
  ca: TemporaryAuthority,
  ip: string,
  { serve, ...options }: CartOptions = {},
): Promise<CartProcess> {
  await using opened = new AsyncDisposableStack();
  const application = opened.use(await startApplication(ip, serve));
  const cart = workload({ name: 'cart', serviceAccount: 'cart', node: 'n2', addresses: [ip] });
  const carrier = opened.use(
    await startCarrierProcess({
      node: 'n2',
      resources: [cart],
      svids: [await ca.svid('spiffe://cluster.local/ns/default/sa/cart')],
      pods: [cart],
      applications: [{ at: { ip, port: 8080 }, port: application.port }],
      ...options,
    }),
  );
  const stack = opened.move();
  return {
    carrier,
    hbone: { ip, port: carrier.portOf({ ip, port: 15008 }) },
    application,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
