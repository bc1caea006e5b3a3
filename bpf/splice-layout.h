/*
 * What splice.bpf.c and user space agree on; splice-layout.ts is its mirror in TypeScript. The rules are those of layout.h, and so
 * is the version: whatever changes here makes ABI one more.
 */
#ifndef SPLICE_LAYOUT_H
#define SPLICE_LAYOUT_H

#include "layout.h"

/*
 * One direction of a connection that the ztunnel carries between two pods of its node, written by the ztunnel. Its key is the
 * cookie of the application's socket that sends, which splice_senders has by struct flow: its pod, its own address (from) and the
 * ztunnel's (to).
 */
struct splice {
	__u64 flushed;              /* bytes from that socket that have been written into the target */
	__u64 target;               /* cookie of the ztunnel's socket towards the other application */
};

/* What has become of it, written by the programs; by cookie of the target. */
struct splice_counts {
	__u64 redirected;           /* bytes that went into the target without the ztunnel */
	__u64 acked;                /* of all bytes in the target, how many the other end has: a little behind */
};

/* Of an application's socket, for the programs alone. */
struct splice_socket {
	struct flow key;
	__u64 cookie;
	__u64 passed;               /* bytes on their way to the ztunnel, or there */
	__u64 redirected;
	/* What the target has in its queue: memory for the bytes before `mark`, and for those after it. */
	__u64 mark;
	__u64 before, after;
};

/* What a direction may have queued in the target, in bytes of memory. The ztunnel gives the target twice as much. */
#define SPLICE_QUEUE (2 << 20)
/* Memory that a message takes besides its bytes. */
#define SPLICE_OVERHEAD 2048

#endif
