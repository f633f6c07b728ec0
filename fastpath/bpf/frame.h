/* Stage 1: decode a frame. It accepts a subset of what packet.Decode accepts, the
 * common shapes: at most one VLAN tag, and an IPv4 header without options or an IPv6
 * header, directly followed by TCP, UDP, an ICMP echo or an IPv6 fragment header. */

#define ETH_HEADER 14
#define VLAN_TAG 4
#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define FRAGMENT_HEADER 8
#define TCP_HEADER 20
#define UDP_HEADER 8
#define ICMP_HEADER 8
#define LONGEST_HEADERS (ETH_HEADER + IPV6_HEADER + FRAGMENT_HEADER) /* down to IP */
#define MAX_PACKET 65535

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_8021Q 0x8100
#define ETHERTYPE_8021AD 0x88a8
#define MIN_ETHERTYPE 0x600
#define VID_MASK 0xfff
#define LLC_SNAP 0xaa
#define LLC_IP 0x06
#define LLC_UI 0x03
#define LLC_POLL 0x10
#define OUI_ETHERNET 0x000000
#define OUI_BRIDGED 0x0000f8

#define IPV4_IHL5 0x45
#define IPV4_RESERVED 0x8000
#define IPV4_MORE 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV6_MORE 0x0001
#define IPV6_OFFSET 0xfff8

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_AH 51
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_DESTINATION 60
#define PROTOCOL_MOBILITY 135
#define PROTOCOL_HIP 139
#define PROTOCOL_SHIM6 140

#define ECHO_REPLY 0
#define ECHO_REQUEST 8
#define ECHO_REQUEST_V6 128
#define ECHO_REPLY_V6 129

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_URG 0x20

struct frame {
	struct flow_key key; /* without ports in a fragment other than the first */
	__u64 vlans; /* as in the key; set even if the key has none */
	__u32 bytes; /* of the frame, including a tag that the kernel stores outside it */
	__u32 end; /* end of the frame, without such a tag */
	__u32 network; /* where the IP header begins */
	__u32 upper; /* where the transport header begins, or the fragment's payload */
	__u32 length; /* of the IP packet */
	__u32 id; /* of a fragment */
	__u32 offset; /* of a fragment's payload */
	__u32 seq, ack; /* TCP */
	__u16 checksum; /* of the transport header, in network byte order */
	__u16 window; /* TCP, not scaled */
	__u16 udp_length;
	__u8 udp_segments; /* it stands for several UDP datagrams */
	__u16 segment; /* size of the segments that the frame stands for, or 0 */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 tcp_header; /* length */
	__u8 tagged;
	__u8 ipv6;
	__u8 fragment, more;
	__u8 fragments; /* an IPv4 datagram that the kernel will fragment */
	__u8 portless; /* IP options or extension headers are before the ports, which are not read */
	__u8 hidden; /* may hold a fragment of an unknown datagram */
};

static __always_inline __u16 load16(const void *p)
{
	return bpf_ntohs(*(const __be16 *)p);
}

static __always_inline __u32 load32(const void *p)
{
	return bpf_ntohl(*(const __be32 *)p);
}

static __always_inline __u64 load64(const void *p)
{
	return bpf_be64_to_cpu(*(const __be64 *)p);
}

static __always_inline __u32 body(const struct frame *f)
{
	return f->network + f->length - f->upper;
}

/* set_addresses stores the addresses of a frame from a side in the order of the key. */
static __always_inline void set_addresses(struct frame *f, enum side from, __u64 src0, __u64 src1, __u64 dst0, __u64 dst1)
{
	if (from == INSIDE) {
		f->key.inside[0] = src0, f->key.inside[1] = src1;
		f->key.outside[0] = dst0, f->key.outside[1] = dst1;
	} else {
		f->key.inside[0] = dst0, f->key.inside[1] = dst1;
		f->key.outside[0] = src0, f->key.outside[1] = src1;
	}
}

/* is_extension reports whether a protocol is an IPv6 extension header other than the fragment
 * header. */
static __always_inline int is_extension(__u8 protocol)
{
	switch (protocol) {
	case PROTOCOL_HOP_BY_HOP:
	case PROTOCOL_ROUTING:
	case PROTOCOL_AH:
	case PROTOCOL_DESTINATION:
	case PROTOCOL_MOBILITY:
	case PROTOCOL_HIP:
	case PROTOCOL_SHIM6:
		return 1;
	default:
		return 0;
	}
}

static __always_inline void set_ports(struct frame *f, __u16 inside, __u16 outside)
{
	f->key.ports = (__u64)inside << 32 | (__u64)outside << 16 | f->protocol << 8 | f->ipv6;
}

/* set_echo makes the key of an ICMP echo from its identifier, its
 * code, and the side that sent the request (filter/flow, query.ports). */
static __always_inline enum reason set_echo(struct frame *f, enum side from, const __u8 *h)
{
	__u8 request = f->ipv6 ? ECHO_REQUEST_V6 : ECHO_REQUEST;
	__u8 reply = f->ipv6 ? ECHO_REPLY_V6 : ECHO_REPLY;

	if (h[0] != request && h[0] != reply)
		return PROTOCOL;
	f->checksum = *(const __u16 *)(h + 2);
	set_ports(f, load16(h + 4), h[1] << 8 | (h[0] == reply ? !from : from));
	return NONE;
}

/* read_upper reads the transport header of a whole packet or of a first fragment.
 * The barriers keep clang from merging the reads of a field of several headers into
 * one instruction with a variable offset, which is not allowed without CAP_PERFMON. */
static __always_inline enum reason read_upper(struct __sk_buff *skb, struct frame *f, enum side from)
{
	__u8 h[TCP_HEADER] __attribute__((aligned(8))) = {};
	__u32 n = body(f);
	__u16 src, dst;

	if (n > TCP_HEADER)
		n = TCP_HEADER;
	barrier_var(n);
	if (n < UDP_HEADER || n > TCP_HEADER || bpf_skb_load_bytes(skb, f->upper, h, n))
		return HEADER;
	if (f->protocol == PROTOCOL_TCP) {
		if (n < TCP_HEADER)
			return HEADER;
		f->seq = load32(h + 4), f->ack = load32(h + 8);
		f->tcp_header = h[12] >> 4 << 2;
		f->tcp_flags = h[13];
		f->window = load16(h + 14);
		f->checksum = *(const __u16 *)(h + 16);
		barrier();
	} else if (f->protocol == PROTOCOL_UDP) {
		f->udp_length = load16(h + 4);
		f->checksum = *(const __u16 *)(h + 6);
		f->udp_segments = !!f->segment;
		barrier();
	} else if (f->protocol == (f->ipv6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP)) {
		return set_echo(f, from, h);
	} else {
		return PROTOCOL;
	}
	src = load16(h), dst = load16(h + 2);
	set_ports(f, from == INSIDE ? src : dst, from == INSIDE ? dst : src);
	return f->segment && f->protocol == PROTOCOL_UDP ? SEGMENTS : NONE;
}

/* sound_fragment is packet's checkFragment. headers is the length of the headers that count. */
static __always_inline enum reason sound_fragment(const struct frame *f, __u32 headers)
{
	__u32 length = body(f);

	if (length == 0 || (f->more && length % 8) || headers + f->offset + length > MAX_PACKET || f->segment)
		return HEADER;
	return NONE;
}

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (sum >> 16) + (sum & 0xffff);
}

static __always_inline enum reason read_ipv4(struct frame *f, enum side from, const __u8 *h)
{
	const __u32 *words = (const __u32 *)h;
	__u64 prefix = 0xffffULL << 32;
	__u16 field;

	if (f->network + IPV4_HEADER > f->end || h[0] >> 4 != 4)
		return HEADER;
	f->protocol = h[9];
	set_addresses(f, from, 0, prefix | load32(h + 12), 0, prefix | load32(h + 16));
	field = load16(h + 6);
	f->fragment = !!(field & (IPV4_MORE | IPV4_OFFSET));
	f->fragments = f->segment && field & IPV4_RESERVED; /* tun/ufo's mark */
	f->id = load16(h + 4);
	if (h[0] != IPV4_IHL5) {
		f->portless = 1;
		return HEADER;
	}
	f->length = load16(h + 2);
	f->upper = f->network + IPV4_HEADER;
	if (f->length < IPV4_HEADER || f->network + f->length > f->end)
		return HEADER;
	if (fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4]) != 0xffff)
		return HEADER;
	if (f->fragment) {
		f->more = !!(field & IPV4_MORE);
		f->offset = (field & IPV4_OFFSET) * 8;
		if (sound_fragment(f, IPV4_HEADER) != NONE)
			return HEADER;
	}
	return NONE;
}

static __always_inline enum reason read_ipv6(struct frame *f, enum side from, const __u8 *h)
{
	__u16 field;

	if (f->network + IPV6_HEADER > f->end || h[0] >> 4 != 6)
		return HEADER;
	f->ipv6 = 1;
	f->length = IPV6_HEADER + load16(h + 4);
	f->upper = f->network + IPV6_HEADER;
	if (f->length == IPV6_HEADER || f->network + f->length > f->end)
		return HEADER;
	f->protocol = h[6];
	set_addresses(f, from, load64(h + 8), load64(h + 16), load64(h + 24), load64(h + 32));
	f->portless = is_extension(f->protocol);
	if (f->protocol != PROTOCOL_FRAGMENT)
		return NONE;
	h += IPV6_HEADER;
	if (f->length < IPV6_HEADER + FRAGMENT_HEADER)
		return HEADER;
	f->upper += FRAGMENT_HEADER;
	f->protocol = h[0];
	field = load16(h + 2);
	f->offset = field & IPV6_OFFSET, f->more = field & IPV6_MORE;
	f->id = load32(h + 4);
	if (!f->offset && !f->more) { /* a whole packet (RFC 6946) */
		f->portless = 1;
		return HEADER;
	}
	f->fragment = 1;
	return sound_fragment(f, 0);
}

/* set_vlan records a tag. A tag with identifier 0 is only a priority tag. */
static __always_inline void set_vlan(struct frame *f, __u16 tpid, __u16 tci)
{
	f->tagged = VLAN_TAG;
	if (tci & VID_MASK)
		f->vlans = (__u64)tpid << 48 | (__u64)(tci & VID_MASK) << 32;
}

/* is_encapsulation reports whether an LLC header is followed by IPv4 or
 * IPv6, or by another header that may hide one (packet's encapsulation). */
static __always_inline int is_encapsulation(const __u8 *h)
{
	__u32 oui = (__u32)h[3] << 16 | h[4] << 8 | h[5];
	__u16 type = load16(h + 6);

	if ((h[2] & ~LLC_POLL) != LLC_UI)
		return 0;
	if ((h[0] & ~1) == LLC_IP)
		return 1;
	if ((h[0] & ~1) != LLC_SNAP || (h[1] & ~1) != LLC_SNAP || (oui != OUI_ETHERNET && oui != OUI_BRIDGED))
		return 0;
	return type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6 || type == ETHERTYPE_8021Q || type == ETHERTYPE_8021AD;
}

/* is_hidden reports whether a frame whose EtherType is not IP may hold a fragment
 * of a datagram that the fast path forwards: after LLC, or after two tags one of
 * which is a priority tag. Fragments in two VLANs are never forwarded. */
static __always_inline int is_hidden(const struct frame *f, __u16 type, const __u8 *h)
{
	if (type < MIN_ETHERTYPE)
		return is_encapsulation(h);
	if (type != ETHERTYPE_8021Q && type != ETHERTYPE_8021AD)
		return 0;
	return !f->vlans || !(load16(h) & VID_MASK);
}

/* load_headers copies the beginning of a frame, starting at an offset.
 * Bytes beyond the frame are 0. It makes a copy because a program without
 * CAP_PERFMON may read the frame itself only at constant offsets. */
static __always_inline int load_headers(struct __sk_buff *skb, __u32 offset, __u8 *headers)
{
	__u32 n = skb->len - offset;

	if (skb->len < offset + ETH_HEADER)
		return 0;
	if (n > LONGEST_HEADERS)
		n = LONGEST_HEADERS;
	barrier_var(n);
	if (n < ETH_HEADER || n > LONGEST_HEADERS)
		return 0;
	return bpf_skb_load_bytes(skb, offset, headers, n) == 0;
}

/* read_frame decodes a frame that arrived on a side. It returns
 * NONE, or the reason why the fast path does not handle the frame. */
static __always_inline enum reason read_frame(struct __sk_buff *skb, struct frame *f, enum side from)
{
	__u8 headers[LONGEST_HEADERS + 6] __attribute__((aligned(8))) = {};
	__u8 *h = headers + 2; /* so that the IP header is aligned */
	enum reason why;
	__u16 type;

	if (!load_headers(skb, 0, h))
		return NOT_IP;
	f->bytes = f->end = skb->len;
	f->segment = skb->gso_size;
	f->network = ETH_HEADER;
	type = load16(h + ETH_HEADER - 2);
	if (skb->vlan_present) {
		f->bytes += VLAN_TAG; /* as user space gets it */
		set_vlan(f, bpf_ntohs(skb->vlan_proto), skb->vlan_tci);
	} else if (type == ETHERTYPE_8021Q || type == ETHERTYPE_8021AD) {
		set_vlan(f, type, load16(h + ETH_HEADER));
		if (!load_headers(skb, VLAN_TAG, h)) /* with the type in the place of the tag's */
			return NOT_IP;
		f->network += VLAN_TAG;
		type = load16(h + ETH_HEADER - 2);
	}
	if (type == ETHERTYPE_IPV4) {
		why = read_ipv4(f, from, h + ETH_HEADER);
	} else if (type == ETHERTYPE_IPV6) {
		why = read_ipv6(f, from, h + ETH_HEADER);
	} else {
		f->hidden = is_hidden(f, type, h + ETH_HEADER);
		return NOT_IP;
	}
	if (why != NONE || f->offset)
		return why;
	return read_upper(skb, f, from);
}

/* fits_egress reports whether the wire would forward the frame unchanged: the packet
 * or each segment fits the egress MTU, and so does the frame with its trailer. */
static __always_inline int fits_egress(const struct frame *f, __u32 mtu)
{
	__u32 longest = mtu + ETH_HEADER + VLAN_TAG + f->tagged;
	__u32 packet = f->length;

	if (f->segment) {
		__u32 headers = f->upper - f->network + f->tcp_header;

		/* wire takes no trailer behind segments. */
		if (f->network + f->length != f->end)
			return 0;
		if (headers + f->segment < packet)
			packet = headers + f->segment;
	} else if (f->bytes > longest) {
		return 0;
	}
	return packet <= mtu;
}

/* segments returns the number of packets that a frame stands for. */
static __always_inline __u32 segments(const struct frame *f)
{
	__u32 header = f->udp_segments ? UDP_HEADER : f->tcp_header;

	if (!f->segment || f->portless || body(f) <= header)
		return 1;
	return (body(f) - header + f->segment - 1) / f->segment;
}
