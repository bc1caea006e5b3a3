/*
 * The kernel splice: bytes between two applications of one node that go past the ztunnel, through its sockets. With C the
 * client's socket, S the server's, A and B the ztunnel's:
 *
 *     C ==== A   ztunnel   B ==== S        what C sends is put into B's queue, and what S sends into A's
 *
 * TCP stays TCP: B's queue, B's and S's windows, and S's FIN and RST are as they would be if the ztunnel had written the bytes; it
 * still sees both ends, ends them, and counts. Two rules make it safe:
 *
 * - Order. A message goes into B only when all that C has ever passed to the ztunnel has been written into B: both count.
 * - No waiting. A message goes into B only when there is room for it. C would get EAGAIN otherwise, and nobody would wake it: who
 *   waits, waits for room at C. So when B is full, messages go to the ztunnel, as without all this, until it has caught up.
 *
 * Whatever is missing here (an entry, a socket, memory) means that a message goes to the ztunnel.
 */
#include "kernel.h"
#include "layout.h"
#include "mesh.h"
#include "splice-layout.h"

/*
 * Pods that have asked for it; by cookie of the network namespace. Here and in the maps of this type below, entries of a ztunnel that was
 * killed are pushed out by others.
 */
struct {
	number(type, BPF_MAP_TYPE_LRU_HASH);
	number(max_entries, 4096);
	type_of(key, __u64);
	type_of(value, __u32);
} splice_pods SEC(".maps");

/* Applications' sockets whose messages are looked at. */
struct {
	number(type, BPF_MAP_TYPE_SOCKHASH);
	number(max_entries, 65536);
	type_of(key, struct flow);
	type_of(value, __u64);
} splice_senders SEC(".maps");

/* The ztunnel's sockets, by cookie. An entry goes with its socket: what is cut gets nothing more. */
struct {
	number(type, BPF_MAP_TYPE_SOCKHASH);
	number(max_entries, 65536);
	type_of(key, __u64);
	type_of(value, __u64);
} splice_targets SEC(".maps");

/* By cookie of the application's socket: the next one between the same ends is another. */
struct {
	number(type, BPF_MAP_TYPE_LRU_HASH);
	number(max_entries, 65536);
	type_of(key, __u64);
	type_of(value, struct splice);
} splices SEC(".maps");

struct {
	number(type, BPF_MAP_TYPE_LRU_HASH);
	number(max_entries, 65536);
	type_of(key, __u64);
	type_of(value, struct splice_counts);
} splice_counts SEC(".maps");

struct {
	number(type, BPF_MAP_TYPE_SK_STORAGE);
	number(map_flags, BPF_F_NO_PREALLOC);
	type_of(key, int);
	type_of(value, struct splice_socket);
} splice_sockets SEC(".maps");

inline_always void get_flow(struct bpf_sock_ops *ctx, struct flow *flow)
{
	flow->pod = bpf_get_netns_cookie(ctx);
	set_ip(flow->from.ip, ctx->family, ctx->local_ip4, ctx->local_ip6);
	flow->from.port = read_once(ctx->local_port);
	set_ip(flow->to.ip, ctx->family, ctx->remote_ip4, ctx->remote_ip6);
	flow->to.port = host32(read_once(ctx->remote_port));
}

/* An application has a connection with its ztunnel, which stays in the pod, or, more than is needed, with itself. */
inline_always void watch_sender(struct bpf_sock_ops *ctx, struct bpf_sock *sk, struct flow *flow)
{
	struct splice_socket *socket;

	if (!is_loopback(flow->to.ip) && !same(flow->to.ip, flow->from.ip))
		return;
	socket = bpf_sk_storage_get(&splice_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket)
		return;
	socket->key = *flow;
	socket->cookie = bpf_get_socket_cookie(ctx);
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	bpf_sock_hash_update(ctx, &splice_senders, flow, BPF_ANY);
}

/* Finds the sockets of both kinds when they are established, and keeps what is known of them. */
SEC("sockops")
int splice_socket(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct flow flow = {};
	struct splice_socket *socket;
	struct splice_counts *counts;
	__u64 cookie;

	if (!sk)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		get_flow(ctx, &flow);
		if (!bpf_map_lookup_elem(&splice_pods, &flow.pod))
			return 1;
		if (bpf_sk_storage_get(&own, sk, 0, 0))
			bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG);
		else
			watch_sender(ctx, sk, &flow);
		return 1;
	case BPF_SOCK_OPS_RTT_CB:
		cookie = bpf_get_socket_cookie(ctx);
		counts = bpf_map_lookup_elem(&splice_counts, &cookie);
		if (counts)
			counts->acked = ctx->bytes_acked;
		return 1;
	case BPF_SOCK_OPS_STATE_CB:
		/* It has sent its FIN: no message comes, and recv() is better off with the kernel's own. */
		if (ctx->args[1] != BPF_TCP_FIN_WAIT1 && ctx->args[1] != BPF_TCP_LAST_ACK)
			return 1;
		socket = bpf_sk_storage_get(&splice_sockets, sk, 0, 0);
		if (!socket)
			return 1;
		flow = socket->key;
		bpf_map_delete_elem(&splice_senders, &flow);
		return 1;
	}
	return 1;
}

/* Whether there is room for so many bytes in the target; if so, they count as being there. */
inline_always int takes(struct splice_socket *socket, __u64 acked, __u32 size)
{
	__u64 queued = socket->passed + socket->redirected;

	if (acked >= queued) {
		socket->before = 0;
		socket->after = 0;
	} else if (acked >= socket->mark) {
		socket->before = socket->after;
		socket->after = 0;
		socket->mark = queued;
	}
	if (socket->before + socket->after + size + SPLICE_OVERHEAD > SPLICE_QUEUE)
		return 0;
	socket->after += size + SPLICE_OVERHEAD;
	socket->redirected += size;
	return 1;
}

/* One message of an application. It is called with the socket locked: messages of several threads come one after the other. */
SEC("sk_msg")
int splice_message(struct sk_msg_md *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct splice_socket *socket;
	struct splice *splice;
	struct splice_counts *counts;
	__u64 target;

	if (!sk)
		return SK_PASS;
	socket = bpf_sk_storage_get(&splice_sockets, sk, 0, 0);
	if (!socket)
		return SK_PASS;
	splice = bpf_map_lookup_elem(&splices, &socket->cookie);
	if (splice && splice->flushed == socket->passed) {
		target = splice->target;
		counts = bpf_map_lookup_elem(&splice_counts, &target);
		if (counts && takes(socket, counts->acked, ctx->size)) {
			if (bpf_msg_redirect_hash(ctx, &splice_targets, &target, 0) == SK_PASS) {
				__sync_fetch_and_add(&counts->redirected, ctx->size);
				return SK_PASS;
			}
			socket->redirected -= ctx->size;
		}
	}
	socket->passed += ctx->size;
	return SK_PASS;
}
