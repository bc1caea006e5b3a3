/* Packets at the pod's device: what one is, and how one is answered so that its sender is told at once that it is refused. */
#ifndef PACKET_H
#define PACKET_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include "kernel.h"

/* TC_ACT_UNSPEC and TCX_NEXT alike: says nothing about the packet, whatever is attached behind gets it. */
#define NEXT -1
#define DROP 2

#define IP_FRAGMENT 0x3fff      /* more fragments, or not the first */

enum { PROTOCOL_ARP = 256, PROTOCOL_HIDDEN, PROTOCOL_UNKNOWN };

struct packet {
	__u32 protocol;         /* of IP, or one of the above */
	__u32 payload;          /* where its header begins */
	__u8 six, fragment, options;
};

/* Behind the header that comes first one looks no further than for what the kernel itself sends: reports of its groups. */
inline_always void parse_extension(struct __sk_buff *skb, struct packet *packet)
{
	__u32 first = packet->protocol;
	__u8 next;

	if (first != IPPROTO_HOPOPTS && first != IPPROTO_FRAGMENT && first != IPPROTO_ROUTING && first != IPPROTO_DSTOPTS)
		return;
	packet->protocol = PROTOCOL_HIDDEN;
	packet->fragment = 1;
	if (bpf_skb_load_bytes(skb, packet->payload, &next, sizeof(next)))
		return;
	if (next == IPPROTO_ICMPV6 && (first == IPPROTO_HOPOPTS || first == IPPROTO_FRAGMENT))
		packet->protocol = next;
	if (next == IPPROTO_UDP && first == IPPROTO_FRAGMENT)
		packet->protocol = next;
}

/* By the bytes of the frame: skb->protocol is whatever the sender of a raw frame says that it is. */
inline_always void parse(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr ip4;
	struct ipv6hdr ip6;
	__u16 type;

	packet->protocol = PROTOCOL_UNKNOWN;
	if (bpf_skb_load_bytes(skb, ETH_HLEN - sizeof(type), &type, sizeof(type)))
		return;
	if (type == network16(ETH_P_ARP)) {
		packet->protocol = PROTOCOL_ARP;
	} else if (type == network16(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip4, sizeof(ip4)) || ip4.ihl < 5)
			return;
		packet->protocol = ip4.protocol;
		packet->payload = ETH_HLEN + ip4.ihl * 4;
		packet->fragment = !!(ip4.frag_off & network16(IP_FRAGMENT));
		packet->options = ip4.ihl > 5;
	} else if (type == network16(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip6, sizeof(ip6)))
			return;
		packet->protocol = ip6.nexthdr;
		packet->payload = ETH_HLEN + sizeof(ip6);
		packet->six = 1;
		parse_extension(skb, packet);
	}
}

inline_always __u64 sum_up(const void *data, __u32 length)
{
	const __u32 *words = data;
	__u64 sum = 0;

#pragma unroll
	for (__u32 i = 0; i < length / 4; i++)
		sum += words[i];
	return sum;
}

/* The Internet's checksum (RFC 1071) of what was summed up. */
inline_always __u16 checksum(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The packet, with another content, comes in by the device that it was to leave by, from where it was to go. */
inline_always int send_back(struct __sk_buff *skb, const void *ip, __u32 ip_length, const void *body, __u32 length)
{
	__u8 mac[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, mac, sizeof(mac)) || bpf_skb_change_tail(skb, ETH_HLEN + ip_length + length, 0) ||
	    bpf_skb_store_bytes(skb, 0, mac + ETH_ALEN, ETH_ALEN, 0) || bpf_skb_store_bytes(skb, ETH_ALEN, mac, ETH_ALEN, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, ip, ip_length, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + ip_length, body, length, 0))
		return DROP;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

inline_always void turn4(struct iphdr *ip, __u8 protocol, __u32 length)
{
	__u32 from = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = from;
	ip->tot_len = network16(sizeof(*ip) + length);
	ip->protocol = protocol;
	ip->ttl = 64;
	ip->check = 0;
	ip->check = checksum(sum_up(ip, sizeof(*ip)));
}

inline_always void turn6(struct ipv6hdr *ip, __u8 protocol, __u32 length)
{
	struct in6_addr from = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = from;
	ip->payload_len = network16(length);
	ip->nexthdr = protocol;
	ip->hop_limit = 64;
}

/* A reset: connect() says ECONNREFUSED. The kernel looks at no checksum of a packet that its own TCP has just made. */
inline_always int answer_reset(struct __sk_buff *skb, const struct packet *packet, const struct tcphdr *syn)
{
	struct tcphdr reset = {
		.source = syn->dest,
		.dest = syn->source,
		.ack_seq = network32(host32(syn->seq) + 1),
		.doff = sizeof(reset) / 4,
		.rst = 1,
		.ack = 1,
	};
	struct iphdr ip4;
	struct ipv6hdr ip6;

	if (packet->six) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip6, sizeof(ip6)))
			return DROP;
		turn6(&ip6, IPPROTO_TCP, sizeof(reset));
		return send_back(skb, &ip6, sizeof(ip6), &reset, sizeof(reset));
	}
	if (packet->options || bpf_skb_load_bytes(skb, ETH_HLEN, &ip4, sizeof(ip4)))
		return DROP;
	turn4(&ip4, IPPROTO_TCP, sizeof(reset));
	return send_back(skb, &ip4, sizeof(ip4), &reset, sizeof(reset));
}

/* A message of ICMP or ICMPv6 that quotes a packet of UDP. */
struct icmp {
	__u8 type, code;
	__u16 checksum;
	__u32 unused;
};

/* Port unreachable: the next call on a connected socket says ECONNREFUSED. Quotes the headers of what it refuses. */
inline_always int answer_unreachable(struct __sk_buff *skb, const struct packet *packet)
{
	struct {
		struct icmp icmp;
		struct iphdr ip;
		__u32 udp[2];
	} four = { .icmp = { .type = 3, .code = 3 } };
	struct {
		struct icmp icmp;
		struct ipv6hdr ip;
		__u32 udp[2];
	} six = { .icmp = { .type = 1, .code = 4 } };
	struct iphdr ip4;
	struct ipv6hdr ip6;

	if (packet->fragment || packet->options)
		return DROP;
	if (packet->six) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &six.ip, sizeof(six.ip) + sizeof(six.udp)))
			return DROP;
		ip6 = six.ip;
		turn6(&ip6, IPPROTO_ICMPV6, sizeof(six));
		/* Of the addresses, the length and the protocol, too. */
		six.icmp.checksum = checksum(sum_up(&ip6.saddr, 2 * sizeof(ip6.saddr)) + network32(sizeof(six)) +
						network32(IPPROTO_ICMPV6) + sum_up(&six, sizeof(six)));
		return send_back(skb, &ip6, sizeof(ip6), &six, sizeof(six));
	}
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &four.ip, sizeof(four.ip) + sizeof(four.udp)))
		return DROP;
	ip4 = four.ip;
	turn4(&ip4, IPPROTO_ICMP, sizeof(four));
	four.icmp.checksum = checksum(sum_up(&four, sizeof(four)));
	return send_back(skb, &ip4, sizeof(ip4), &four, sizeof(four));
}

#endif
