import type { AccessRecord, Peer } from './access-log.ts';

/**
 * A record as a line of JSON with a stock ztunnel's field names (fact sheet ambient-wire.md, 8), and ours: `waypoint.identity`, `policy`,
 * `reason`, `dry_run`, `response_flags`, `connection_id`, `hop`. Undefined for records that are for metrics only.
 */
export function formatAccessRecord(record: AccessRecord): string | undefined {
  switch (record.event) {
    case 'opened':
    case 'progress':
    case 'left':
    case 'joined':
      return undefined;
    case 'failed':
      return JSON.stringify({
        ...head(record, 'warn', 'connection failed'),
        ...ends(record),
        ...why(record),
      });
    case 'closed': {
      const level = record.error === undefined ? 'info' : 'error';
      return JSON.stringify({
        ...head(record, level, 'connection complete'),
        ...ends(record),
        ...bytes(record),
        duration: `${Math.round(record.durationMs)}ms`,
        ...why(record),
      });
    }
  }
}

function head(record: AccessRecord, level: string, message: string): object {
  return { level, time: new Date(record.atMs).toISOString(), scope: 'access', message };
}

function ends(record: AccessRecord): object {
  const { source, destination } = record;
  return {
    'src.addr': source.address,
    ...peer('src', source),
    'waypoint.identity': record.waypoint,
    'dst.addr': destination.address,
    'dst.hbone_addr': record.hboneAddress,
    'dst.service': (record.service ?? record.impliedService)?.hostname,
    ...peer('dst', destination),
    direction: record.direction,
    hop: record.security === 'same_node' ? 'same-node' : undefined,
  };
}

function peer(side: 'src' | 'dst', { workload, identity }: Peer): object {
  return {
    [`${side}.workload`]: workload?.name,
    [`${side}.namespace`]: workload?.namespace,
    [`${side}.identity`]: identity,
    [`${side}.cluster`]: workload?.cluster,
  };
}

/** Sent is what went out of this node's view: towards the server when outbound, towards the client when inbound. */
function bytes({ direction, totalReceivedBytes, totalSentBytes }: AccessRecord): object {
  return direction === 'outbound'
    ? { bytes_sent: totalReceivedBytes, bytes_recv: totalSentBytes }
    : { bytes_sent: totalSentBytes, bytes_recv: totalReceivedBytes };
}

function why(record: AccessRecord): object {
  return {
    error: record.error,
    response_flags: record.flags === '-' ? undefined : record.flags,
    policy: record.policy,
    reason: record.reason,
    dry_run: record.dryRun,
    connection_id: record.connectionId,
  };
}
