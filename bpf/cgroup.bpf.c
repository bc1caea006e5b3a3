/*
 * The programs at the mesh's cgroup: what a pod's processes, and the ztunnel's, do with their sockets. They take a connection
 * to the ztunnel before there is any packet of it, and show each side the address that it would have seen without a mesh.
 */
#include <linux/in.h>

#include "call.h"
#include "connect.h"
#include "handshake.h"
#include "kernel.h"
#include "layout.h"
#include "mesh.h"

#define SOL_PACKET 263
#define PACKET_QDISC_BYPASS 20
#define SOL_XDP 283

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

		/*
		 * The resolver is at ::1. What the kernel answers there for a socket that is gone would, from another address,
		 * leave by the pod's device, and the resolver would wait for it.
		 */
		if (verdict == TO_RESOLVER && !ipv4 && ctx->type == SOCK_STREAM) {
			from.ip[0] = from.ip[1] = from.ip[2] = 0;
			from.ip[3] = network32(LOOPBACK_IPV6);
		}
		bpf_bind(ctx, &from, sizeof(from));
	}
	if (verdict == TO_RESOLVER)
		set_peer6(ctx, ipv4, ipv4 ? LOOPBACK_IPV4 : LOOPBACK_IPV6, PORT_DNS);
	else if (ipv4)
		set_peer6(ctx, 1, SPREAD_IPV4 | spread(&to, SPREAD_IPV4_BITS), PORT_OUTBOUND);
	else if (pod)
		set_peer6_words(ctx, pod->ip6, SPREAD_IPV6_PORT + spread(&to, SPREAD_IPV6_BITS));
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
inline_always int passes_by_queue(struct bpf_sockopt *ctx)
{
	return ctx->level == SOL_XDP || (ctx->level == SOL_PACKET && ctx->optname == PACKET_QDISC_BYPASS);
}

/* Whether a socket is about to be bound to the pod's device, and not to loopback, which is 1 in every namespace. */
inline_always int binds_to_device(struct bpf_sockopt *ctx, int length)
{
	char *value = ctx->optval;

	if (ctx->level != SOL_SOCKET || (void *)(value + 5) > ctx->optval_end)
		return 0;
	if (ctx->optname == SO_BINDTOIFINDEX)
		return length >= 4 && *(int *)value > 1;
	return ctx->optname == SO_BINDTODEVICE && length >= 4 && value[0] == 'e' && value[1] == 't' && value[2] == 'h' &&
	       value[3] == '0' && (length == 4 || value[4] == 0);
}

/*
 * What a pod dials, and who dials it, comes over loopback: a TCP socket that is bound to a device would have neither. Only one
 * with CAP_NET_RAW can be taken off its device later, so it is not bound in the first place; its caller is told that it is.
 * The same with UDP where only queries for names may leave.
 */
inline_always int needs_no_device(struct bpf_sockopt *ctx, struct pod *pod)
{
	if (!ctx->sk || bpf_sk_storage_get(&own, ctx->sk, 0, 0))
		return 0;
	return ctx->sk->type == SOCK_STREAM || (ctx->sk->type == SOCK_DGRAM && (pod->flags & POD_REFUSE_UDP));
}

SEC("cgroup/setsockopt")
int setsockopt(struct bpf_sockopt *ctx)
{
	int length = ctx->optlen;
	int bypass = passes_by_queue(ctx);
	int device = binds_to_device(ctx, length);
	__u64 cookie;
	struct pod *pod;

	ctx->optlen = 0; /* The kernel takes the value from the caller, not our copy, which is cut at a page. */
	if (!bypass && !device)
		return 1;
	cookie = bpf_get_netns_cookie(ctx);
	pod = bpf_map_lookup_elem(&pods, &cookie);
	if (!pod)
		return 1;
	if (device) {
		if (needs_no_device(ctx, pod))
			ctx->optlen = -1; /* done, says the kernel, and does nothing */
		return 1;
	}
	if (!(pod->flags & POD_STRICT))
		return 1;
	count(cookie, EGRESS_RAW);
	return 0;
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
