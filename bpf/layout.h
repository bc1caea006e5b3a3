/*
 * What the programs and user space agree on: structures, numbers and ports. layout.ts is its mirror in TypeScript.
 *
 * Addresses: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d, so that one structure serves both families and a v4-mapped
 * socket. Ports: host order. No structure has padding that the compiler adds: they are map keys, compared byte by byte.
 * Whatever changes a structure, a map or the meaning of a number here makes ABI one more.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <linux/types.h>

#define ABI 1

/* Somebody's address. family, 2 or 10, is that of the socket call; 0 in keys. */
struct endpoint {
	__u32 ip[4];
	__u16 port;
	__u16 family;
};

/* One direction of a connection inside a pod. pod: cookie of the network namespace, never used twice while a node is up. */
struct flow {
	__u64 pod;
	struct endpoint from, to;
};

enum pod_flag {
	POD_OUTBOUND = 1,           /* what it dials goes to the ztunnel */
	POD_INBOUND = 2,            /* what is dialled goes to the ztunnel */
	POD_STRICT = 4,             /* nothing passes while the ztunnel is gone, nothing gets round it */
	POD_REFUSE_UDP = 8,         /* no UDP in or out, but queries for names */
	POD_DNS = 16,               /* port 53 goes to the ztunnel's resolver */
	POD_REFUSE_PLAINTEXT = 32,  /* whoever comes without an identity is refused, whatever else */
	POD_BACKSTOP = 64,          /* the program at the device acts */
};

struct pod {
	__u32 flags;
	__u32 reserved;
	__u32 ip4[4], ip6[4];       /* its own addresses; zero: it has none of this family */
};

enum listener_kind { LISTENER_OUTBOUND, LISTENER_INBOUND, LISTENER_HBONE };

/* Each kind has several slots, so that several workers can listen side by side. A power of two. */
#define LISTENER_SLOTS 8

struct listener_key {
	__u64 pod;
	__u32 kind;
	__u32 slot;
};

/* The ztunnel's tag on its own socket. */
struct ztunnel_socket {
	__u32 version;              /* 1 */
	__u32 reserved;
	struct endpoint shown;      /* whom the application at the other end sees as its peer; port 0: the socket itself */
	__u32 pad;
};

/* Who may come past the ztunnel: this address to this port. */
struct probe_key {
	__u64 pod;
	__u32 from[4];
	__u32 port;
	__u32 pad;
};

enum reason {
	OUTBOUND_WITHOUT_ZTUNNEL,
	INBOUND_WITHOUT_ZTUNNEL,
	PLAINTEXT_REFUSED,
	EGRESS_TCP,
	EGRESS_RAW,
	UDP_OUTBOUND,
	UDP_INBOUND,
	MESH_PORT_BOUND,
	EGRESS_FRAGMENT,
	EGRESS_PROTOCOL,
	NO_MEMORY,
	EGRESS_SEEN,
	MESH_PORT_DIALLED,
};

struct counters {
	__u64 count[16];            /* by enum reason */
};

#define PORT_OUTBOUND 15001
#define PORT_INBOUND 15006
#define PORT_HBONE 15008
#define PORT_DNS 15053
/*
 * A pod has some 28,000 source ports for each address and port that it dials, and captured connections all dial the ztunnel.
 * So it is dialled at one of 4 million addresses from 127.64.0.0 on, or, over IPv6, at one of 16 ports of the pod's own address:
 * by a hash of where the connection goes. Not of ::1: what a closed socket answers to ::1 leaves by the pod's device.
 */
#define SPREAD_IPV4 0x7f400000
#define SPREAD_IPV4_BITS 22
#define SPREAD_IPV6_PORT 15064
#define SPREAD_IPV6_BITS 4

#endif
