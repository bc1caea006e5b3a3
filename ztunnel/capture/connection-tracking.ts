import { check, lastErrno, NativeError, SOCK_CLOEXEC, sys, withinNamespace } from './native.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_NETFILTER = 12;
/** NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE: without a tuple, everything (linux/netfilter/nfnetlink_conntrack.h). */
const DELETE_CONNECTIONS = (1 << 8) | 2;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
/** struct nlmsghdr and struct nfgenmsg. */
const REQUEST_SIZE = 20;
/** Offset of the errno in struct nlmsgerr, behind its own header. */
const ERROR_OFFSET = 16;

/**
 * Forgets every connection that netfilter has tracked in a namespace. Entries outlive the rules that they came from, by
 * minutes; a later connection of the same addresses and ports would be taken for theirs.
 * @throws NativeError where the kernel cannot do that
 */
export function forgetTrackedConnections(netnsFd: number): void {
  const fd = withinNamespace(netnsFd, () =>
    check('socket', sys.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER)),
  );
  try {
    const request = Buffer.alloc(REQUEST_SIZE);
    request.writeUInt32LE(REQUEST_SIZE, 0);
    request.writeUInt16LE(DELETE_CONNECTIONS, 4);
    request.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK, 6);
    check('netlink request', sys.write(fd, request, request.length));
    // The kernel has answered before it returned from that.
    const answer = Buffer.alloc(256);
    if (sys.read(fd, answer, answer.length) < 0) throw new NativeError('netlink answer', lastErrno());
    const errno = -answer.readInt32LE(ERROR_OFFSET);
    if (errno !== 0) throw new NativeError('forgetting tracked connections', errno);
  } finally {
    sys.close(fd);
  }
}
