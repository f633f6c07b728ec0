/* Decodes frames, as far as the programs need it. */

/* Unrolls a loop, so that the verifier sees no backward jump. */
#define UNROLLED _Pragma("clang loop unroll(full)")

#define ETH_HEADER 14
#define ETHERTYPE 12 /* its offset */
#define VLAN_TAG 4
#define MAX_TAGS 2
#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define FRAGMENT_HEADER 8
#define HEADERS (ETH_HEADER + IPV6_HEADER + FRAGMENT_HEADER)

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_8021Q 0x8100
#define ETHERTYPE_8021AD 0x88a8

#define IPV4_FRAGMENT 0x3fff /* the M flag and the offset */
#define IPV6_FRAGMENT 0xfff9
#define PROTOCOL_FRAGMENT 44

/* Set before the programs are loaded. */
const volatile __u64 hash_key; /* makes hashes unpredictable, so that a sender cannot choose places */
const volatile __u32 queue_count;
const volatile __u32 ring_records; /* of each queue; a power of 2 */
const volatile __u32 decision_time; /* how long a decision is valid, in units of 1 << TIME_SHIFT ns */

/* Headers of a frame: the Ethernet header without tags, and the following headers. The first two
 * bytes are unused; they align the IP header. */
struct headers {
	__u8 bytes[2 + HEADERS];
	__u16 type; /* EtherType of IPv4 or IPv6; 0 if the frame has no whole header of either */
	__u16 more; /* bytes that were loaded after an IPv6 header: FRAGMENT_HEADER or 0 */
} __attribute__((aligned(8)));

#define IP(h) ((h)->bytes + 2 + ETH_HEADER)

static __always_inline __u16 load16(const void *p)
{
	return bpf_ntohs(*(const __be16 *)p);
}

/* mix is a hash in which each bit affects about half of the high bits (the finalizer of
 * SplitMix64, G. L. Steele et al., 2014, without its last step). It is the same as mixed in Go. */
static __always_inline __u64 mix(__u64 h)
{
	h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ULL;
	return (h ^ h >> 27) * 0x94d049bb133111ebULL;
}

static __always_inline int load(struct __sk_buff *skb, struct headers *h, __u32 at, __u32 bytes)
{
	return bpf_skb_load_bytes(skb, at, h->bytes + 2, bytes) == 0;
}

/* load_ip loads the headers of a frame, and skips up to two tags in it. The frame does not contain
 * the tag that the kernel keeps in its metadata. */
static __always_inline void load_ip(struct __sk_buff *skb, struct headers *h)
{
	__u32 at = 0;

	h->type = h->more = 0;
	UNROLLED
	for (int i = 0; i <= MAX_TAGS; i++) {
		__u16 type;

		if (!load(skb, h, at, ETH_HEADER + IPV4_HEADER))
			return;
		type = load16(h->bytes + 2 + ETHERTYPE);
		if (type == ETHERTYPE_IPV4) {
			h->type = type;
			return;
		}
		if (type == ETHERTYPE_IPV6) {
			if (load(skb, h, at, ETH_HEADER + IPV6_HEADER + FRAGMENT_HEADER))
				h->more = FRAGMENT_HEADER;
			else if (!load(skb, h, at, ETH_HEADER + IPV6_HEADER))
				return;
			h->type = type;
			return;
		}
		if (type != ETHERTYPE_8021Q && type != ETHERTYPE_8021AD)
			return;
		at += VLAN_TAG;
	}
}

static __always_inline __u64 hash_address(const __u8 *address, int words)
{
	__u64 h = hash_key;

	UNROLLED
	for (int i = 0; i < words; i++)
		h = mix(h + bpf_ntohl(*(const __be32 *)(address + 4 * i)));
	return h;
}

/* queue_number returns the same number for all packets between two addresses, in both directions,
 * with any ports, fragment offsets and VLAN tags. Each address is hashed separately, so that the
 * sum of both is symmetric. For frames that are not IP, have an LLC header or end before the
 * addresses, it returns 0. */
static __always_inline __u32 queue_number(const struct headers *h)
{
	if (h->type == ETHERTYPE_IPV4)
		return (hash_address(IP(h) + 12, 1) + hash_address(IP(h) + 16, 1)) >> 48;
	if (h->type == ETHERTYPE_IPV6)
		return (hash_address(IP(h) + 8, 4) + hash_address(IP(h) + 24, 4)) >> 48;
	return 0;
}

/* The datagram and the source of a fragment. */
struct fragment {
	__u64 hash; /* of the datagram's key (RFC 791 §3.2, RFC 8200 §4.5) */
	__u64 prefix; /* of the source: an IPv4 /24 or an IPv6 /56 */
};

#define PREFIX4 bpf_htonl(0xffffff00)
#define PREFIX6 bpf_cpu_to_be64(0xffffffffffffff00ULL)

/* read_fragment reports whether a frame is a fragment. An IPv6 fragment header after other
 * extension headers is rare: such a frame is treated like a whole packet. */
static __always_inline int read_fragment(const struct headers *h, struct fragment *f)
{
	if (h->type == ETHERTYPE_IPV4) {
		__u32 src = *(const __u32 *)(IP(h) + 12);

		if (!(load16(IP(h) + 6) & IPV4_FRAGMENT))
			return 0;
		f->hash = mix(hash_key + *(const __u16 *)(IP(h) + 4) + ((__u64)IP(h)[9] << 16));
		f->hash = mix(f->hash + src);
		f->hash = mix(f->hash + *(const __u32 *)(IP(h) + 16));
		f->prefix = src & PREFIX4;
		return 1;
	}
	if (!h->more || IP(h)[6] != PROTOCOL_FRAGMENT || !(load16(IP(h) + IPV6_HEADER + 2) & IPV6_FRAGMENT))
		return 0;
	f->hash = mix(hash_key + *(const __u32 *)(IP(h) + IPV6_HEADER + 4));
	UNROLLED
	for (int i = 8; i < IPV6_HEADER; i += 8)
		f->hash = mix(f->hash + *(const __u64 *)(IP(h) + i));
	f->prefix = *(const __u64 *)(IP(h) + 8) & PREFIX6;
	return 1;
}
