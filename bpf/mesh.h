/* What the programs at the cgroup and those in a pod have in common: maps, counting, addresses. */
#ifndef MESH_H
#define MESH_H

#include "kernel.h"
#include "layout.h"

/* By cookie of the network namespace. A namespace that is not in here is none of ours: each program first looks here. */
struct {
	number(type, BPF_MAP_TYPE_HASH);
	number(max_entries, 4096);
	type_of(key, __u64);
	type_of(value, struct pod);
} pods SEC(".maps");

/* The ztunnel's listening sockets. An entry goes with its socket, so what is in here is served. */
struct {
	number(type, BPF_MAP_TYPE_SOCKHASH);
	number(max_entries, 32768);
	type_of(key, struct listener_key);
	type_of(value, __u64);
} listeners SEC(".maps");

/* The ztunnel's tag on its sockets; one that it accepts has the tag of the listener. Set by descriptor: nobody can forge it. */
struct {
	number(type, BPF_MAP_TYPE_SK_STORAGE);
	number(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	type_of(key, int);
	type_of(value, struct ztunnel_socket);
} own SEC(".maps");

struct {
	number(type, BPF_MAP_TYPE_HASH);
	number(max_entries, 4096);
	type_of(key, __u64);
	type_of(value, struct counters);
} counters SEC(".maps");

inline_always void count(__u64 cookie, enum reason reason)
{
	struct counters *of_pod = bpf_map_lookup_elem(&counters, &cookie);

	if (of_pod)
		__sync_fetch_and_add(&of_pod->count[reason], 1);
}

inline_always int same(const __u32 *a, const __u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

inline_always int is_ipv4(const __u32 *ip)
{
	return !ip[0] && !ip[1] && ip[2] == network32(0xffff);
}

/* 127.0.0.0/8 and ::1. */
inline_always int is_loopback(const __u32 *ip)
{
	if (is_ipv4(ip))
		return (ip[3] & network32(0xff000000)) == network32(0x7f000000);
	return !ip[0] && !ip[1] && !ip[2] && ip[3] == network32(1);
}

/* The address where this family's own one would be if the pod has it; all zero if not. */
inline_always const __u32 *own_address(const struct pod *pod, const __u32 *like)
{
	return is_ipv4(like) ? pod->ip4 : pod->ip6;
}

inline_always void set_ipv4(__u32 *ip, __u32 address)
{
	ip[0] = 0;
	ip[1] = 0;
	ip[2] = network32(0xffff);
	ip[3] = address;
}

/* All words are read before any is used: see read_once. */
#define set_ip(ip, family, field4, field6)                                                                        \
	do {                                                                                                      \
		__u32 v4_ = read_once(field4), a_ = read_once(field6[0]), b_ = read_once(field6[1]),              \
		      c_ = read_once(field6[2]), d_ = read_once(field6[3]);                                       \
		int six_ = (family) == AF_INET6;                                                                  \
		(ip)[0] = six_ ? a_ : 0;                                                                          \
		(ip)[1] = six_ ? b_ : 0;                                                                          \
		(ip)[2] = six_ ? c_ : network32(0xffff);                                                          \
		(ip)[3] = six_ ? d_ : v4_;                                                                        \
	} while (0)

#endif
