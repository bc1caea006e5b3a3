/**
 * A ztunnel on ports that are free: `node ztunnel.ts CONTROL_PLANE [FLAGS]`, with the flags of `tulle ztunnel`. It ends at
 * SIGTERM, a second after that at the latest.
 */
import { parseZtunnelConfig } from '#ztunnel/config.ts';
import { runZtunnel } from '#ztunnel/main.ts';

const [address = '', ...flags] = process.argv.slice(2);
const config = parseZtunnelConfig(flags, { XDS_ADDRESS: address, CA_ADDRESS: address });
const controller = new AbortController();
process.once('SIGTERM', () => controller.abort());
await runZtunnel(
  { ...config, ports: { admin: 0, stats: 0, readiness: 0 }, drainMs: 1000 },
  controller.signal,
);
