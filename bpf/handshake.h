/* How the address that a client dialled, or a client's own, gets from the socket that dials to the one that is accepted. */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include "call.h"
#include "kernel.h"
#include "layout.h"
#include "mesh.h"
#include "redirected.h"

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

#endif
