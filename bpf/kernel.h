/* The kernel's side of the programs: its helpers (bpf-helpers(7)), how a map is declared, and what keeps the verifier content. */
#ifndef KERNEL_H
#define KERNEL_H

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define inline_always static inline __attribute__((always_inline))

/* libbpf reads a map's attributes from the types of a structure's members. */
#define number(name, value) int(*name)[value]
#define type_of(name, type) type *name

#define AF_INET 2
#define AF_INET6 10

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define network16(x) ((__u16)__builtin_bswap16(x))
#define network32(x) ((__u32)__builtin_bswap32(x))
#else
#define network16(x) ((__u16)(x))
#define network32(x) ((__u32)(x))
#endif
#define host16 network16
#define host32 network32

/*
 * A field of the context, read here and nowhere else. Left alone, clang 14 merges reads of two branches into one through a
 * computed pointer, which the verifier refuses.
 */
#define read_once(field)                   \
	({                                 \
		__u32 value_ = (field);    \
		asm volatile("" : "+r"(value_)); \
		value_;                    \
	})
/* Keeps apart what clang would merge: two neighbouring 4-byte writes to the context, which may not be one of 8. */
#define barrier() asm volatile("" ::: "memory")

#define helper(name) (*name)
#define is(id) = (void *)BPF_FUNC_##id

static void *helper(bpf_map_lookup_elem)(void *map, const void *key) is(map_lookup_elem);
static long helper(bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) is(map_update_elem);
static long helper(bpf_map_delete_elem)(void *map, const void *key) is(map_delete_elem);
static __u64 helper(bpf_get_netns_cookie)(void *context) is(get_netns_cookie);
static void *helper(bpf_sk_storage_get)(void *map, void *sk, const void *value, __u64 flags) is(sk_storage_get);
static long helper(bpf_sk_storage_delete)(void *map, void *sk) is(sk_storage_delete);
static struct bpf_sock *helper(bpf_sk_fullsock)(struct bpf_sock *sk) is(sk_fullsock);
static long helper(bpf_sk_release)(void *sk) is(sk_release);
static long helper(bpf_sk_assign)(void *context, void *sk, __u64 flags) is(sk_assign);
static long helper(bpf_bind)(void *context, void *address, int length) is(bind);
static long helper(bpf_setsockopt)(void *context, int level, int name, void *value, int length) is(setsockopt);
static long helper(bpf_sock_ops_cb_flags_set)(void *context, int flags) is(sock_ops_cb_flags_set);
static long helper(bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 length) is(skb_load_bytes);
static long helper(bpf_skb_store_bytes)(void *skb, __u32 offset, const void *from, __u32 length, __u64 flags) is(skb_store_bytes);
static long helper(bpf_skb_change_tail)(void *skb, __u32 length, __u64 flags) is(skb_change_tail);
static long helper(bpf_redirect)(__u32 device, __u64 flags) is(redirect);
static __u64 helper(bpf_get_socket_cookie)(void *context) is(get_socket_cookie);
static long helper(bpf_sock_hash_update)(void *context, void *map, void *key, __u64 flags) is(sock_hash_update);
static long helper(bpf_msg_redirect_hash)(void *context, void *map, void *key, __u64 flags) is(msg_redirect_hash);

char license_of_programs[] SEC("license") = "Apache-2.0";

#endif
