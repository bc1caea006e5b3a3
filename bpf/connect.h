/* Where a pod's connections and datagrams go: the decision, and what a socket needs to go there. */
#ifndef CONNECT_H
#define CONNECT_H

#include <linux/in.h>

#include "call.h"
#include "kernel.h"
#include "layout.h"
#include "mesh.h"
#include "redirected.h"

#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define SO_BINDTOIFINDEX 62
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_MULTIPATH_TCP 262
#define PORT_DOMAIN 53
#define LOOPBACK_IPV4 0x7f000001
#define LOOPBACK_IPV6 1 /* its last word */

enum verdict { REFUSE, LEAVE, TO_ZTUNNEL, TO_RESOLVER };

/* LISTENER_OUTBOUND stands for the whole ztunnel: its listeners come and go with it. */
inline_always int ztunnel_is_there(__u64 cookie)
{
	struct listener_key key = { .pod = cookie, .kind = LISTENER_OUTBOUND };

	for (__u64 slot = 0; slot < LISTENER_SLOTS; slot++) {
		/* A copy: of a counter inside a key the verifier loses sight, and takes the loop for an endless one. */
		key.slot = read_once(slot);
		void *socket = bpf_map_lookup_elem(&listeners, &key);

		if (socket) {
			bpf_sk_release(socket);
			return 1;
		}
	}
	return 0;
}

/* To itself: no business of a mesh's. Neither is what has no address to come from: the kernel says that it is unreachable. */
inline_always int stays_in_pod(const struct pod *pod, const __u32 *to)
{
	const __u32 none[4] = {};
	const __u32 *own_ip = own_address(pod, to);

	return is_loopback(to) || same(to, own_ip) || same(own_ip, none) || same(to, none) || (is_ipv4(to) && !to[3]);
}

/* What strict and permissive pods differ in: what to do where the ztunnel cannot take it. */
inline_always enum verdict without_ztunnel(const struct pod *pod, __u64 cookie, enum reason reason)
{
	if (!(pod->flags & POD_STRICT))
		return LEAVE;
	count(cookie, reason);
	return REFUSE;
}

/*
 * Where a connect(), or a sendto() of a socket that is not connected, goes. `found` is set where it goes elsewhere.
 *
 * UDP that is refused is refused where it leaves (sendto() here, the rest at the device), not at connect(): getaddrinfo connects
 * a UDP socket to each address that it found, to see which it could reach, and would put them in another order.
 */
inline_always enum verdict decide(struct bpf_sock_addr *ctx, const struct endpoint *to, int sends, struct pod **found)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct pod *pod = bpf_map_lookup_elem(&pods, &cookie);
	struct bpf_sock *sk = ctx->sk;

	if (!pod || !sk)
		return LEAVE;
	/* The ztunnel would take its own connection for one of the application's, and the caller that it shows for its destination. */
	if (bpf_sk_storage_get(&own, sk, 0, 0))
		return !sends && is_for_redirected(pod, to) ? REFUSE : LEAVE;

	int tcp = ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_MULTIPATH_TCP;
	int query = to->port == PORT_DOMAIN && (pod->flags & POD_DNS) && (tcp || ctx->protocol == IPPROTO_UDP);

	/* What it was connected to before it is not any more. */
	if (!sends)
		bpf_sk_storage_delete(&peers, sk);
	if (stays_in_pod(pod, to->ip))
		return LEAVE;
	if (!query && !tcp) {
		if (!sends || !(pod->flags & POD_REFUSE_UDP))
			return LEAVE;
		count(cookie, UDP_OUTBOUND);
		return REFUSE;
	}
	if (!query && !(pod->flags & POD_OUTBOUND))
		return LEAVE;
	if (!ztunnel_is_there(cookie))
		return without_ztunnel(pod, cookie, OUTBOUND_WITHOUT_ZTUNNEL);

	struct endpoint *peer = bpf_sk_storage_get(&peers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!peer)
		return without_ztunnel(pod, cookie, NO_MEMORY);
	*peer = *to;
	*found = pod;
	return query ? TO_RESOLVER : TO_ZTUNNEL;
}

/* The same destination always has the same, so that a source port is as free, or as taken, as it would be without a mesh. */
inline_always __u32 spread(const struct endpoint *to, int bits)
{
	__u64 words = ((__u64)(to->ip[0] ^ to->ip[2]) << 32 | (to->ip[1] ^ to->ip[3])) + to->port;

	return (words * 0x9e3779b97f4a7c15) >> (64 - bits);
}

/* A socket bound to eth0 would look for the ztunnel there. */
inline_always void unbind_device(struct bpf_sock_addr *ctx)
{
	char none[4] = {};

	if (ctx->sk && ctx->sk->bound_dev_if)
		bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, none, 1);
}

inline_always int is_bound(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return !sk || sk->src_port || sk->src_ip4 || sk->src_ip6[0] || sk->src_ip6[3];
}

#endif
