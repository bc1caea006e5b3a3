import { sys } from '../capture/native.ts';
import { ZdsError } from './messages.ts';
import { forget, readable } from './readiness.ts';
import { closeDescriptors, type Packet, receive, send } from './seqpacket.ts';

/** One end of a SEQPACKET connection. It owns its descriptor. */
export interface PacketConnection {
  /** Sends at once. @throws ZdsError `closed` */
  readonly send: (bytes: Uint8Array, descriptor?: number) => void;
  /**
   * The next packet, whose descriptors are the caller's; undefined at the end, and once {@link close} was called. One call
   * at a time.
   */
  readonly receive: () => Promise<Packet | undefined>;
  /** Closes; a waiting `receive` ends. Doing it twice is harmless. */
  readonly close: () => void;
}

/** Takes over a connected, non-blocking socket. */
export function openConnection(fd: number): PacketConnection {
  let open = true;
  const close = (): void => {
    if (!open) return;
    open = false;
    forget(fd);
    sys.close(fd);
  };
  return {
    send: (bytes, descriptor) => {
      if (!open) throw new ZdsError('the connection is closed', { code: 'closed' });
      try {
        send(fd, bytes, descriptor);
      } catch (cause) {
        throw new ZdsError('the other end is gone or does not read', { code: 'closed', cause });
      }
    },
    receive: async () => {
      while (open) {
        const packet = receiveFrom(fd);
        if (packet === 'end') return undefined;
        if (packet !== undefined) return packet;
        await readable(fd);
      }
      return undefined;
    },
    close,
  };
}

/** A packet that breaks a rule of the protocol itself, in words; its descriptors are closed then. */
export function faultOf(packet: Packet, descriptorsExpected: number): string | undefined {
  const fault = packet.truncated
    ? 'it is longer than a message may be'
    : packet.descriptors.length !== descriptorsExpected
      ? `it carries ${packet.descriptors.length} descriptors instead of ${descriptorsExpected}`
      : undefined;
  if (fault !== undefined) closeDescriptors(packet);
  return fault;
}

function receiveFrom(fd: number): Packet | 'end' | undefined {
  try {
    return receive(fd);
  } catch {
    return 'end'; // a broken connection is an ended one
  }
}
