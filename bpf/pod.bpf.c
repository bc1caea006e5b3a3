/*
 * The programs of one pod: who gets what is dialled in it, and what may leave it. They see packets, so they also hold for what
 * does not go by the hooks at the cgroup: a process that entered the namespace from elsewhere, raw sockets, other kernels.
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include "kernel.h"
#include "layout.h"
#include "mesh.h"

/* The pod's cookie, set by the loader: these two kinds of program cannot ask for it on all kernels. */
const volatile __u64 this_pod;

/* Who may come past the ztunnel. */
struct {
	number(type, BPF_MAP_TYPE_HASH);
	number(max_entries, 4096);
	type_of(key, struct probe_key);
	type_of(value, __u32);
} probes SEC(".maps");

/* Other listeners of the same port cannot have it: the socket that user space named gets the connection, nobody beside it. */
inline_always int assign(struct bpf_sk_lookup *ctx, enum listener_kind kind)
{
	struct listener_key key = { .pod = this_pod, .kind = kind };
	__u32 first = host16(read_once(ctx->remote_port));

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

inline_always int is_captured_outbound(const __u32 *to, __u16 port)
{
	if (is_ipv4(to))
		return port == PORT_OUTBOUND && host32(to[3]) >> SPREAD_IPV4_BITS == SPREAD_IPV4 >> SPREAD_IPV4_BITS;
	return is_loopback(to) && port >= SPREAD_IPV6_PORT && port < SPREAD_IPV6_PORT + (1 << SPREAD_IPV6_BITS);
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
	struct probe_key probe = {};
	__u32 local[4];

	if (!pod)
		return SK_PASS;
	set_ip(local, ctx->family, ctx->local_ip4, ctx->local_ip6);
	set_ip(probe.from, ctx->family, ctx->remote_ip4, ctx->remote_ip6);

	__u16 port = read_once(ctx->local_port);
	int inside = is_loopback(probe.from) || same(probe.from, local);
	int otherwise = pod->flags & POD_STRICT;

	if (ctx->protocol == IPPROTO_UDP)
		return !inside && (pod->flags & POD_REFUSE_UDP) ? refuse(UDP_INBOUND) : SK_PASS;
	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (is_captured_outbound(local, port))
		return assign(ctx, LISTENER_OUTBOUND) || !otherwise ? SK_PASS : refuse(OUTBOUND_WITHOUT_ZTUNNEL);
	if (inside)
		return SK_PASS;
	if (port == PORT_HBONE)
		return assign(ctx, LISTENER_HBONE) || !otherwise ? SK_PASS : refuse(INBOUND_WITHOUT_ZTUNNEL);
	probe.pod = cookie;
	probe.port = port;
	if (!(pod->flags & POD_INBOUND) || bpf_map_lookup_elem(&probes, &probe))
		return SK_PASS;
	if (pod->flags & POD_REFUSE_PLAINTEXT)
		return refuse(PLAINTEXT_REFUSED);
	return assign(ctx, LISTENER_INBOUND) || !otherwise ? SK_PASS : refuse(INBOUND_WITHOUT_ZTUNNEL);
}

/* Says nothing about the packet: what is attached behind gets it. TC_ACT_UNSPEC and TCX_NEXT alike. */
#define NEXT -1
#define DROP 2

#define SOCK_STREAM 1
#define SOCK_RAW 3
#define AF_PACKET 17
#define IPPROTO_HOP 0
#define IPPROTO_FRAG 44
#define IPPROTO_ICMP6 58

#define ETHER 14
#define MORE_FRAGMENTS 0x2000
#define FRAGMENT_OFFSET 0x1fff

struct packet {
	__u32 protocol;
	__u32 payload;       /* where the protocol's header begins */
	int fragment;        /* one of several, or something that hides what it is */
};

/* What a packet is, told by its bytes: skb->protocol is what the sender of a raw frame says it is. 0: nothing that we know. */
inline_always int parse(struct __sk_buff *skb, struct packet *packet)
{
	__u8 header[40];
	__u16 type;

	if (bpf_skb_load_bytes(skb, 12, &type, sizeof(type)))
		return 0;
	packet->fragment = 0;
	if (type == network16(ETH_P_IP)) {
		struct iphdr *ip = (void *)header;

		if (bpf_skb_load_bytes(skb, ETHER, header, sizeof(*ip)) || ip->ihl < 5)
			return 0;
		packet->protocol = ip->protocol;
		packet->payload = ETHER + ip->ihl * 4;
		packet->fragment = !!(ip->frag_off & network16(MORE_FRAGMENTS | FRAGMENT_OFFSET));
		return ETH_P_IP;
	}
	if (type == network16(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)header;

		if (bpf_skb_load_bytes(skb, ETHER, header, sizeof(*ip)))
			return 0;
		packet->protocol = ip->nexthdr;
		packet->payload = ETHER + sizeof(*ip);
		return ETH_P_IPV6;
	}
	return type == network16(ETH_P_ARP) ? ETH_P_ARP : 0;
}

inline_always int drop(enum reason reason)
{
	count(this_pod, reason);
	return DROP;
}

inline_always int is_raw(const struct bpf_sock *sk)
{
	return sk && (sk->type == SOCK_RAW || sk->family == AF_PACKET);
}

/* What leaves the pod by its device. Only the ztunnel dials, and only it sends UDP where that is refused. */
SEC("tc")
int leave(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct packet packet;
	__u64 cookie = this_pod;
	struct pod *pod;
	__u8 tcp[14];

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (sk && bpf_sk_storage_get(&own, sk, 0, 0))
		return NEXT;
	pod = bpf_map_lookup_elem(&pods, &cookie);
	if (!pod || !(pod->flags & POD_BACKSTOP))
		return NEXT;

	int type = parse(skb, &packet);
	int strict = pod->flags & POD_STRICT;

	if (type == ETH_P_ARP)
		return NEXT;
	if (!type)
		return strict ? drop(EGRESS_PROTOCOL) : NEXT;
	if (packet.protocol == IPPROTO_UDP && (pod->flags & POD_REFUSE_UDP))
		return drop(is_raw(sk) ? EGRESS_RAW : UDP_OUTBOUND);
	if (packet.protocol != IPPROTO_TCP)
		return NEXT;
	if (bpf_skb_load_bytes(skb, packet.payload, tcp, sizeof(tcp)))
		return strict ? drop(EGRESS_FRAGMENT) : NEXT;
	if ((tcp[13] & 0x12) != 0x02)
		return NEXT;
	if (strict)
		return drop(EGRESS_TCP);
	count(cookie, EGRESS_SEEN);
	return NEXT;
}
