import { relayInPod } from '../relay-in-pod.ts';

/**
 * A relay in a process of its own: `relay.ts NETNS_PATH OWN_SOCKETS_OPTIONS`. Says `ready`, then each connection, to the process
 * that started it, and stops listening when that says anything.
 */

const [netnsPath = '', bpf = '{}'] = process.argv.slice(2);
const relay = await relayInPod(netnsPath, JSON.parse(bpf), (connection) => process.send?.(connection));
process.on('message', () => {
  relay.stop();
  process.send?.('stopped');
});
process.on('disconnect', () => process.exit());
process.send?.('ready');
