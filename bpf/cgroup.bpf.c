/*
 * The programs at the mesh's cgroup: what a pod's processes, and the ztunnel's, do with their sockets. They take a connection
 * to the ztunnel before there is any packet of it, and show each side the address that it would have seen without a mesh.
 */
#include <linux/in.h>

#include "kernel.h"
#include "layout.h"
#include "mesh.h"

#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define SOL_PACKET 263
#define PACKET_QDISC_BYPASS 20
#define SOL_XDP 283
#define IPPROTO_MULTIPATH_TCP 262
#define PORT_DOMAIN 53
#define LOOPBACK_IPV4 0x7f000001
#define LOOPBACK_IPV6 1 /* its last word */

/* Whom getpeername shows: to a client what it dialled, to a server the real client. User space asks by descriptor. */
struct {
	number(type, BPF_MAP_TYPE_SK_STORAGE);
	number(map_flags, BPF_F_NO_PREALLOC);
	type_of(key, int);
	type_of(value, struct endpoint);
} peers SEC(".maps");

/* The same between a connection's SYN and its being accepted: how it gets from one socket's peers to the other's. */
struct {
	number(type, BPF_MAP_TYPE_LRU_HASH);
	number(max_entries, 65536);
	type_of(key, struct flow);
	type_of(value, struct endpoint);
} handshakes SEC(".maps");

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

	if (!pod || !sk || bpf_sk_storage_get(&own, sk, 0, 0))
		return LEAVE;

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

inline_always void set_peer4(struct bpf_sock_addr *ctx, __u32 ip, __u16 port)
{
	ctx->user_ip4 = network32(ip);
	barrier();
	ctx->user_port = network16(port);
}

/* `last`: the last word of ::ffff:a.b.c.d if `ipv4`, else of ::1. */
inline_always void set_peer6(struct bpf_sock_addr *ctx, int ipv4, __u32 last, __u16 port)
{
	ctx->user_ip6[0] = 0;
	barrier();
	ctx->user_ip6[1] = 0;
	barrier();
	ctx->user_ip6[2] = ipv4 ? network32(0xffff) : 0;
	barrier();
	ctx->user_ip6[3] = network32(last);
	barrier();
	ctx->user_port = network16(port);
}

inline_always void get_peer4(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	set_ipv4(to->ip, read_once(ctx->user_ip4));
	to->port = host16(read_once(ctx->user_port));
	to->family = AF_INET;
}

inline_always void get_peer6(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	to->ip[0] = read_once(ctx->user_ip6[0]);
	to->ip[1] = read_once(ctx->user_ip6[1]);
	to->ip[2] = read_once(ctx->user_ip6[2]);
	to->ip[3] = read_once(ctx->user_ip6[3]);
	to->port = host16(read_once(ctx->user_port));
	to->family = AF_INET6;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint to;
	struct pod *pod = 0;

	get_peer4(ctx, &to);
	enum verdict verdict = decide(ctx, &to, 0, &pod);

	if (verdict <= LEAVE)
		return verdict;
	unbind_device(ctx);
	if (pod && !is_bound(ctx)) {
		/* From its own address, which getsockname() shows. Not from 127.0.0.1, which is what the kernel would choose. */
		struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = pod->ip4[3] };

		bpf_bind(ctx, &from, sizeof(from));
	}
	if (verdict == TO_RESOLVER)
		set_peer4(ctx, LOOPBACK_IPV4, PORT_DNS);
	else
		set_peer4(ctx, SPREAD_IPV4 | spread(&to, SPREAD_IPV4_BITS), PORT_OUTBOUND);
	return LEAVE;
}

/* struct sockaddr_in6 of linux/in6.h, in words. */
struct ipv6_address {
	__u16 family, port;
	__u32 flow, ip[4], scope;
};

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint to;
	struct pod *pod = 0;

	get_peer6(ctx, &to);
	enum verdict verdict = decide(ctx, &to, 0, &pod);

	if (verdict <= LEAVE)
		return verdict;
	int ipv4 = is_ipv4(to.ip);

	unbind_device(ctx);
	if (pod && !is_bound(ctx)) {
		const __u32 *ip = own_address(pod, to.ip);
		struct ipv6_address from = { .family = AF_INET6, .ip = { ip[0], ip[1], ip[2], ip[3] } };

		bpf_bind(ctx, &from, sizeof(from));
	}
	if (verdict == TO_RESOLVER)
		set_peer6(ctx, ipv4, ipv4 ? LOOPBACK_IPV4 : LOOPBACK_IPV6, PORT_DNS);
	else if (ipv4)
		set_peer6(ctx, 1, SPREAD_IPV4 | spread(&to, SPREAD_IPV4_BITS), PORT_OUTBOUND);
	else
		set_peer6(ctx, 0, LOOPBACK_IPV6, SPREAD_IPV6_PORT + spread(&to, SPREAD_IPV6_BITS));
	return LEAVE;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint to;
	struct pod *pod;

	get_peer4(ctx, &to);
	enum verdict verdict = decide(ctx, &to, 1, &pod);

	if (verdict <= LEAVE)
		return verdict;
	unbind_device(ctx);
	set_peer4(ctx, LOOPBACK_IPV4, PORT_DNS);
	return LEAVE;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint to;
	struct pod *pod;

	get_peer6(ctx, &to);
	enum verdict verdict = decide(ctx, &to, 1, &pod);

	if (verdict <= LEAVE)
		return verdict;
	unbind_device(ctx);
	set_peer6(ctx, is_ipv4(to.ip), is_ipv4(to.ip) ? LOOPBACK_IPV4 : LOOPBACK_IPV6, PORT_DNS);
	return LEAVE;
}

/* The peer to show instead of the socket's own one: none for the ztunnel, which wants to know what is. */
inline_always struct endpoint *shown_peer(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk || bpf_sk_storage_get(&own, sk, 0, 0))
		return 0;
	return bpf_sk_storage_get(&peers, sk, 0, 0);
}

inline_always void show4(struct bpf_sock_addr *ctx, const struct endpoint *peer)
{
	set_peer4(ctx, host32(peer->ip[3]), peer->port);
}

inline_always void show6(struct bpf_sock_addr *ctx, const struct endpoint *peer)
{
	ctx->user_ip6[0] = peer->ip[0];
	barrier();
	ctx->user_ip6[1] = peer->ip[1];
	barrier();
	ctx->user_ip6[2] = peer->ip[2];
	barrier();
	ctx->user_ip6[3] = peer->ip[3];
	barrier();
	ctx->user_port = network16(peer->port);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint *peer = shown_peer(ctx);

	if (peer)
		show4(ctx, peer);
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint *peer = shown_peer(ctx);

	if (peer)
		show6(ctx, peer);
	return 1;
}

/* An answer of the ztunnel's resolver looks as if the resolver had sent it that was asked. */
SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint from;
	struct endpoint *peer = shown_peer(ctx);

	get_peer4(ctx, &from);
	if (peer && from.port == PORT_DNS && is_loopback(from.ip))
		show4(ctx, peer);
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint from;
	struct endpoint *peer = shown_peer(ctx);

	get_peer6(ctx, &from);
	if (peer && from.port == PORT_DNS && is_loopback(from.ip))
		show6(ctx, peer);
	return 1;
}

/* A pod must not sit down on the ztunnel's ports while it is away. */
inline_always int may_bind(struct bpf_sock_addr *ctx)
{
	__u16 port = host16(read_once(ctx->user_port));

	if (port != PORT_OUTBOUND && port != PORT_INBOUND && port != PORT_HBONE && port != PORT_DNS &&
	    (port < SPREAD_IPV6_PORT || port >= SPREAD_IPV6_PORT + (1 << SPREAD_IPV6_BITS)))
		return 1;

	__u64 cookie = bpf_get_netns_cookie(ctx);

	if (!bpf_map_lookup_elem(&pods, &cookie) || (ctx->sk && bpf_sk_storage_get(&own, ctx->sk, 0, 0)))
		return 1;
	count(cookie, MESH_PORT_BOUND);
	return 0;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	return may_bind(ctx);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	return may_bind(ctx);
}

/* Packet sockets have two ways past the queue of a device, and so past the program there. A strict pod has neither. */
SEC("cgroup/setsockopt")
int setsockopt(struct bpf_sockopt *ctx)
{
	int bypass = ctx->level == SOL_XDP || (ctx->level == SOL_PACKET && ctx->optname == PACKET_QDISC_BYPASS);
	__u64 cookie;
	struct pod *pod;

	ctx->optlen = 0; /* The kernel takes the value from the caller, not our copy, which is cut at a page. */
	if (!bypass)
		return 1;
	cookie = bpf_get_netns_cookie(ctx);
	pod = bpf_map_lookup_elem(&pods, &cookie);
	if (!pod || !(pod->flags & POD_STRICT))
		return 1;
	count(cookie, EGRESS_RAW);
	return 0;
}

inline_always void get_local(struct bpf_sock_ops *ctx, struct endpoint *local)
{
	set_ip(local->ip, ctx->family, ctx->local_ip4, ctx->local_ip6);
	local->port = read_once(ctx->local_port);
	local->family = 0;
}

inline_always void get_remote(struct bpf_sock_ops *ctx, struct endpoint *remote)
{
	set_ip(remote->ip, ctx->family, ctx->remote_ip4, ctx->remote_ip6);
	remote->port = host32(read_once(ctx->remote_port));
	remote->family = 0;
}

/* Whom the other end is to see, or was going to; nothing if this connection is not one between a pod and its ztunnel. */
inline_always struct endpoint *to_tell(struct bpf_sock *sk)
{
	struct ztunnel_socket *tag = bpf_sk_storage_get(&own, sk, 0, 0);

	if (tag)
		return tag->shown.port ? &tag->shown : 0;
	return bpf_sk_storage_get(&peers, sk, 0, 0);
}

/*
 * Hands the address from the socket that dials to the one that is accepted. The SYN has not left when it is published, so the
 * acceptor never misses it. It is taken away when it has been read, and, for a connection that was refused, when the dialling
 * socket closes, while its ports are still its own: nobody else's connection can find it.
 */
SEC("sockops")
int handshake(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct flow flow = {};
	struct endpoint *tell, *kept;

	if (!sk)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		tell = to_tell(sk);
		if (!tell)
			return 1;
		flow.pod = bpf_get_netns_cookie(ctx);
		get_local(ctx, &flow.from);
		get_remote(ctx, &flow.to);
		if (bpf_map_update_elem(&handshakes, &flow, tell, BPF_ANY))
			count(flow.pod, NO_MEMORY);
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		flow.pod = bpf_get_netns_cookie(ctx);
		if (!bpf_map_lookup_elem(&pods, &flow.pod))
			return 1;
		get_remote(ctx, &flow.from);
		get_local(ctx, &flow.to);
		tell = bpf_map_lookup_elem(&handshakes, &flow);
		if (!tell)
			return 1;
		kept = bpf_sk_storage_get(&peers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (kept)
			*kept = *tell;
		else
			count(flow.pod, NO_MEMORY);
		bpf_map_delete_elem(&handshakes, &flow);
		return 1;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] != BPF_TCP_CLOSE)
			return 1;
		flow.pod = bpf_get_netns_cookie(ctx);
		get_local(ctx, &flow.from);
		get_remote(ctx, &flow.to);
		bpf_map_delete_elem(&handshakes, &flow);
		return 1;
	}
	return 1;
}
