/* The address in a socket call: read, written, and the one that is shown in its place. */
#ifndef CALL_H
#define CALL_H

#include "kernel.h"
#include "layout.h"
#include "mesh.h"

/* Whom getpeername shows: to a client what it dialled, to a server the real client. User space asks by descriptor. */
struct {
	number(type, BPF_MAP_TYPE_SK_STORAGE);
	number(map_flags, BPF_F_NO_PREALLOC);
	type_of(key, int);
	type_of(value, struct endpoint);
} peers SEC(".maps");

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

/* Any address, as it is. */
inline_always void set_peer6_words(struct bpf_sock_addr *ctx, const __u32 *ip, __u16 port)
{
	ctx->user_ip6[0] = read_once(ip[0]);
	barrier();
	ctx->user_ip6[1] = read_once(ip[1]);
	barrier();
	ctx->user_ip6[2] = read_once(ip[2]);
	barrier();
	ctx->user_ip6[3] = read_once(ip[3]);
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

#endif
