/*
 * The programs of one pod: who gets what is dialled in it, and what may leave it. They see packets, so they also hold for what
 * does not go by the hooks at the cgroup: a process that entered the namespace from elsewhere, raw sockets, other kernels.
 */
#include <linux/in.h>

#include "kernel.h"
#include "layout.h"
#include "mesh.h"
#include "packet.h"
#include "redirected.h"

/* The pod's cookie, set by the loader: these two kinds of program cannot ask for it on all kernels. */
const volatile __u64 this_pod;

/* Who may come past the ztunnel. */
struct {
	number(type, BPF_MAP_TYPE_HASH);
	number(max_entries, 4096);
	type_of(key, struct probe_key);
	type_of(value, __u32);
} probes SEC(".maps");

/*
 * Other listeners of the same port cannot have it: the socket that user space named gets the connection, nobody beside it.
 * By a hash of the caller's port, not its last bits: the kernel prefers even ones.
 */
inline_always int assign(struct bpf_sk_lookup *ctx, enum listener_kind kind)
{
	struct listener_key key = { .pod = this_pod, .kind = kind };
	__u32 first = (host16(read_once(ctx->remote_port)) * 0x9e3779b1) >> 29;

	for (__u64 turn = 0; turn < LISTENER_SLOTS; turn++) {
		key.slot = (first + turn) & (LISTENER_SLOTS - 1);
		void *socket = bpf_map_lookup_elem(&listeners, &key);

		if (socket) {
			/* Fails for an IPv4 listener where the caller has IPv6; another slot may be for both. */
			long failed = bpf_sk_assign(ctx, socket, BPF_SK_LOOKUP_F_NO_REUSEPORT);

			bpf_sk_release(socket);
			if (!failed)
				return 1;
		}
	}
	return 0;
}

inline_always int refuse(enum reason reason)
{
	count(this_pod, reason);
	return SK_DROP;
}

/* To the ztunnel. While it is gone: to nobody, or, in a pod that is not strict, to whom it would be without a mesh. */
inline_always int give(struct bpf_sk_lookup *ctx, enum listener_kind kind, const struct pod *pod, enum reason reason)
{
	return assign(ctx, kind) || !(pod->flags & POD_STRICT) ? SK_PASS : refuse(reason);
}

/* Ports at which the ztunnel listens for what is led there: nobody outside has any business with them. */
inline_always int is_private(__u16 port)
{
	return port == PORT_OUTBOUND || port == PORT_INBOUND || port == PORT_DNS;
}

/*
 * Who answers a SYN, or a packet of UDP. What is dropped here is refused: TCP with a reset.
 *
 * Whether it came by the device cannot be asked (the interface of a packet to an own address is that of the address), but the
 * kernel lets nothing in from there that comes from loopback or, with IPv4, from an own address.
 */
SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	__u64 cookie = this_pod;
	struct pod *pod = bpf_map_lookup_elem(&pods, &cookie);
	struct flow flow = { .pod = cookie };
	struct probe_key probe = { .pod = cookie };
	const __u32 *local = flow.to.ip, *remote = flow.from.ip;

	if (!pod)
		return SK_PASS;
	set_ip(flow.to.ip, ctx->family, ctx->local_ip4, ctx->local_ip6);
	flow.to.port = read_once(ctx->local_port);
	set_ip(flow.from.ip, ctx->family, ctx->remote_ip4, ctx->remote_ip6);
	flow.from.port = host16(read_once(ctx->remote_port));

	__u16 port = flow.to.port;
	int inside = is_loopback(remote) || is_loopback(local) || same(remote, local) ||
		     same(remote, own_address(pod, remote));

	if (ctx->protocol == IPPROTO_UDP)
		return !inside && (pod->flags & POD_REFUSE_UDP) ? refuse(UDP_INBOUND) : SK_PASS;
	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (is_redirected(pod, &flow))
		return give(ctx, LISTENER_OUTBOUND, pod, OUTBOUND_WITHOUT_ZTUNNEL);
	if (inside)
		return SK_PASS;
	if ((pod->flags & POD_OUTBOUND) && is_private(port))
		return refuse(MESH_PORT_DIALLED);
	if (port == PORT_HBONE)
		return give(ctx, LISTENER_HBONE, pod, INBOUND_WITHOUT_ZTUNNEL);
	set_ip(probe.from, ctx->family, ctx->remote_ip4, ctx->remote_ip6);
	probe.port = port;
	if (!(pod->flags & POD_INBOUND) || bpf_map_lookup_elem(&probes, &probe))
		return SK_PASS;
	if (pod->flags & POD_REFUSE_PLAINTEXT)
		return refuse(PLAINTEXT_REFUSED);
	return give(ctx, LISTENER_INBOUND, pod, INBOUND_WITHOUT_ZTUNNEL);
}

#define SOCK_RAW 3
#define AF_PACKET 17

/* A packet of whom: the kernel's own answers (resets, the last of a closed connection) have no full socket, or a raw one. */
enum sender { SENDER_NONE, SENDER_SOCKET, SENDER_RAW };

inline_always enum sender sender_of(const struct bpf_sock *sk)
{
	if (!sk)
		return SENDER_NONE;
	return sk->type == SOCK_RAW || sk->family == AF_PACKET ? SENDER_RAW : SENDER_SOCKET;
}

inline_always int drop(enum reason reason)
{
	count(this_pod, reason);
	return DROP;
}

/* Only a connected socket would hear of an answer. */
inline_always int leave_udp(struct __sk_buff *skb, const struct packet *packet, const struct bpf_sock *sk)
{
	enum sender sender = sender_of(sk);

	count(this_pod, sender == SENDER_RAW ? EGRESS_RAW : UDP_OUTBOUND);
	return sender == SENDER_SOCKET && sk->state == BPF_TCP_ESTABLISHED ? answer_unreachable(skb, packet) : DROP;
}

/* Without a SYN of its own, only a connection that was accepted, or that is older than the mesh, has anything to send. */
inline_always int leave_tcp(struct __sk_buff *skb, const struct packet *packet, enum sender sender)
{
	struct tcphdr tcp;

	if (packet->fragment || bpf_skb_load_bytes(skb, packet->payload, &tcp, sizeof(tcp)))
		return drop(EGRESS_FRAGMENT);
	if (tcp.syn && !tcp.ack) {
		count(this_pod, sender == SENDER_RAW ? EGRESS_RAW : EGRESS_TCP);
		return sender == SENDER_SOCKET ? answer_reset(skb, packet, &tcp) : DROP;
	}
	if (sender == SENDER_SOCKET)
		return NEXT;
	if (sender == SENDER_RAW && tcp.syn)
		return drop(EGRESS_RAW);
	if (skb->len > packet->payload + tcp.doff * 4)
		return drop(sender == SENDER_RAW ? EGRESS_RAW : EGRESS_TCP);
	return NEXT;
}

inline_always int is_syn(struct __sk_buff *skb, const struct packet *packet)
{
	struct tcphdr tcp;

	if (packet->protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, packet->payload, &tcp, sizeof(tcp)))
		return 0;
	return tcp.syn && !tcp.ack;
}

/* What leaves the pod by its device. Only the ztunnel dials, and only it sends UDP where that is refused. */
SEC("tc")
int leave(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct packet packet = {};
	__u64 cookie = this_pod;
	struct pod *pod;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (sk && bpf_sk_storage_get(&own, sk, 0, 0))
		return NEXT;
	pod = bpf_map_lookup_elem(&pods, &cookie);
	if (!pod || !(pod->flags & POD_BACKSTOP))
		return NEXT;
	parse(skb, &packet);
	if (packet.protocol == IPPROTO_UDP && (pod->flags & POD_REFUSE_UDP))
		return leave_udp(skb, &packet, sk);
	if (!(pod->flags & POD_STRICT)) {
		if (is_syn(skb, &packet))
			count(cookie, EGRESS_SEEN);
		return NEXT;
	}
	switch (packet.protocol) {
	case IPPROTO_TCP:
		return leave_tcp(skb, &packet, sender_of(sk));
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_IGMP:
	case IPPROTO_ICMPV6:
	case PROTOCOL_ARP:
		return NEXT;
	case PROTOCOL_HIDDEN:
		return drop(EGRESS_FRAGMENT);
	default:
		return drop(EGRESS_PROTOCOL);
	}
}
