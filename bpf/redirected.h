/* Connections that the hook in connect sends to the ztunnel: where they go, and what is known of each until it is accepted. */
#ifndef REDIRECTED_H
#define REDIRECTED_H

#include "kernel.h"
#include "layout.h"
#include "mesh.h"

/* What peers will have at the other end, from when a connection is dialled until it is accepted. */
struct {
	number(type, BPF_MAP_TYPE_LRU_HASH);
	number(max_entries, 65536);
	type_of(key, struct flow);
	type_of(value, struct endpoint);
} handshakes SEC(".maps");

/* Whether the hook sends connections there. Anybody may dial it: see SPREAD_IPV4. */
inline_always int is_for_redirected(const struct pod *pod, const struct endpoint *to)
{
	__u16 port = to->port;

	if (is_ipv4(to->ip))
		return port == PORT_OUTBOUND && host32(to->ip[3]) >> SPREAD_IPV4_BITS == SPREAD_IPV4 >> SPREAD_IPV4_BITS;
	return same(to->ip, pod->ip6) && port >= SPREAD_IPV6_PORT && port < SPREAD_IPV6_PORT + (1 << SPREAD_IPV6_BITS);
}

/* Whether the hook has sent it there: not one from the wire, nor an application's own, nor one that was forgotten. */
inline_always int is_redirected(const struct pod *pod, const struct flow *flow)
{
	return is_for_redirected(pod, &flow->to) && bpf_map_lookup_elem(&handshakes, flow);
}

#endif
