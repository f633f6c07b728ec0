/* Stage 3, if the policy tracks flows: checks whether a host would
 * accept the datagram and, for TCP, whether the segment fits the
 * connection (filter/flow: wellFormed, readSegment, fits, note). */

#define MIN_ACK_WINDOW 66000
#define MAX_RETRANSMITS 3
#define MAX_TCP_OPTIONS 40
#define OPTION_NOP 1
#define OPTION_SACK 5
#define SACK_BLOCK 8
#define NOP_NOP_TIMESTAMP 0x0101080a /* of 10 bytes (RFC 7323, appendix A) */
#define TIMESTAMP_LAYOUT 12

/* sum is the state of a checksum computation. partial is negative on failure. */
struct sum {
	struct __sk_buff *skb;
	__u32 at, left;
	__s64 partial;
};

/* sum_chunk adds the next CHUNK bytes, or all that are left, in words of 4 bytes. */
static long sum_chunk(__u32 index, struct sum *s)
{
	__u32 first = 0, n = s->left < CHUNK ? s->left : CHUNK;
	__u8 *chunk = bpf_map_lookup_elem(&scratch, &first);

	barrier_var(n);
	if (!chunk || !n || n > CHUNK)
		return 1;
	if (bpf_skb_load_bytes(s->skb, s->at, chunk, n)) {
		s->partial = -1;
		return 1;
	}
	s->partial = bpf_csum_diff(0, 0, (__be32 *)chunk, n, s->partial);
	s->at += n;
	s->left -= n;
	return s->partial < 0;
}

/* sum_body adds the transport header and the data after it, length bytes in total. */
static __always_inline int sum_body(struct __sk_buff *skb, const struct frame *f, __u32 length, __u64 *sum)
{
	struct sum s = {.skb = skb, .at = f->upper, .left = length & ~3U};
	__u32 rest = length & 3, tail = 0;

	bpf_loop(MAX_PACKET / CHUNK + 1, sum_chunk, &s, 0);
	if (rest && s.partial >= 0) {
		if (bpf_skb_load_bytes(skb, s.at, &tail, rest))
			return 0;
		s.partial = bpf_csum_diff(0, 0, &tail, sizeof(tail), s.partial);
	}
	*sum = (__u32)s.partial;
	return s.partial >= 0;
}

/* add_wide adds 8 bytes of an address to an Internet checksum, in
 * host byte order. The caller swaps the bytes of the final sum. */
static __always_inline __u64 add_wide(__u64 sum, __u64 bytes)
{
	return sum + (bytes >> 32) + (bytes & 0xffffffff);
}

/* pseudo_header returns the sum of the pseudo-header, in network byte order. */
static __always_inline __u16 pseudo_header(const struct frame *f, __u32 length)
{
	__u64 sum = (__u64)length + f->protocol;

	if (f->ipv6) {
		sum = add_wide(sum, f->key.inside[0]);
		sum = add_wide(sum, f->key.outside[0]);
		sum = add_wide(sum, f->key.inside[1]);
		sum = add_wide(sum, f->key.outside[1]);
	} else {
		sum += (f->key.inside[1] & 0xffffffff) + (f->key.outside[1] & 0xffffffff);
	}
	return bpf_htons(fold(sum));
}

/* right_checksum reports whether the checksum of the transport
 * header is right, or was verified or will be completed by a NIC. */
static __always_inline int right_checksum(struct __sk_buff *skb, const struct frame *f)
{
	__u32 length = f->protocol == PROTOCOL_UDP ? f->udp_length : body(f);
	__u16 pseudo = f->protocol == PROTOCOL_ICMP ? 0 : pseudo_header(f, length);
	__u64 sum;

	if (f->segment || bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) >= 0)
		return 1;
	if (f->protocol == PROTOCOL_UDP && !f->checksum)
		return 1;
	if (f->protocol != PROTOCOL_ICMP && f->checksum == pseudo && is_partial(skb))
		return 1;
	return sum_body(skb, f, length, &sum) && fold(sum + pseudo) == 0xffff;
}

/* well_formed reports whether a host would accept a whole packet. */
APART int well_formed(struct __sk_buff *skb, const struct frame *f)
{
	if (f->protocol == PROTOCOL_UDP && (f->udp_length < UDP_HEADER || f->udp_length > body(f)))
		return 0;
	return right_checksum(skb, f);
}

static __always_inline int after(__u32 a, __u32 b)
{
	return (__s32)(b - a) < 0;
}

static __always_inline int before(__u32 a, __u32 b)
{
	return after(b, a);
}

/* advance raises a sequence number, even if other CPUs change it at the same time. */
static __always_inline void advance(__u32 *number, __u32 to)
{
	UNROLLED
	for (int i = 0; i < RETRIES; i++) {
		__u32 old = *(volatile __u32 *)number;

		if (!after(to, old) || __sync_val_compare_and_swap(number, old, to) == old)
			return;
	}
}

/* highest_ack finds the highest number that a segment acknowledges, selectively or
 * not, in the option layouts that hosts send. It returns false for any other layout. */
static __always_inline int highest_ack(struct __sk_buff *skb, const struct frame *f, __u32 *highest)
{
	__u8 options[MAX_TCP_OPTIONS + 4] = {};
	__u32 size = f->tcp_header - TCP_HEADER;
	__u32 at = 0;

	*highest = f->ack;
	if (!size)
		return 1;
	if (size > MAX_TCP_OPTIONS || bpf_skb_load_bytes(skb, f->upper + TCP_HEADER, options, size))
		return 0;
	if (load32(options) == NOP_NOP_TIMESTAMP) {
		if (size == TIMESTAMP_LAYOUT)
			return 1;
		at = TIMESTAMP_LAYOUT;
	}
	UNROLLED
	for (__u32 i = 0; i < 2; i++) { /* two layouts, so that offsets are constants */
		const __u8 *o = options + i * TIMESTAMP_LAYOUT;

		if (at != i * TIMESTAMP_LAYOUT)
			continue;
		if (o[0] != OPTION_NOP || o[1] != OPTION_NOP || o[2] != OPTION_SACK)
			return 0;
		if (o[3] < 2 + SACK_BLOCK || (o[3] - 2) % SACK_BLOCK || at + 2 + o[3] != size)
			return 0;
		UNROLLED
		for (__u32 block = 0; block < 4 - i; block++) {
			__u32 right = load32(o + 4 + block * SACK_BLOCK + 4);

			if (2 + (block + 1) * SACK_BLOCK <= o[3] && after(right, *highest))
				*highest = right;
		}
	}
	return 1;
}

/* How the numbers of a segment fit the connection. */
enum fit { OUT, BEYOND, CURRENT };

static __always_inline enum fit fits(const struct frame *f, const struct way *sender, const struct way *receiver, __u32 end, __u32 sack)
{
	__u32 window = sender->max_win > MIN_ACK_WINDOW ? sender->max_win : MIN_ACK_WINDOW;
	int sent = before(sack, receiver->end + 1);
	int timely = after(sack, receiver->end - window - 1);
	int receivable = after(end, sender->end - receiver->max_win - 1);

	if (!sent || !timely || !receivable)
		return OUT;
	if (before(f->seq, sender->max_end + 1))
		return CURRENT;
	return end - sender->max_end + 1 <= receiver->max_win ? BEYOND : OUT;
}

static __always_inline void note_last(const struct frame *f, struct slot *s, struct way *sender, enum side from, __u32 end)
{
	if (s->last_from == from && sender->last_seq == f->seq && sender->last_ack == f->ack &&
	    sender->last_end == end && sender->last_window == f->window) {
		if (sender->retransmits < MAX_RETRANSMITS)
			sender->retransmits++;
		return;
	}
	if (s->last_from != from)
		s->last_from = from;
	sender->last_seq = f->seq, sender->last_ack = f->ack;
	sender->last_end = end, sender->last_window = f->window;
	sender->retransmits = 0;
}

static __always_inline void note(const struct frame *f, struct slot *s, enum side from, __u32 end, __u32 sack)
{
	struct way *sender = &s->ways[from], *receiver = &s->ways[!from];
	__u32 window = f->window << (s->scale[from] & 15);
	__u32 offered = window + sack - f->ack;

	if (offered > sender->max_win)
		sender->max_win = offered;
	advance(&sender->end, end);
	advance(&sender->max_ack, f->ack);
	if (after(sack + window, receiver->max_end - 1))
		advance(&receiver->max_end, sack + (window ? window : 1));
	note_last(f, s, sender, from, end);
}

/* note_sender records the sender of a segment that passes without any other effect. */
static __always_inline void note_sender(struct slot *s, enum side from)
{
	struct way *sender = &s->ways[from], *other = &s->ways[!from];

	if (s->last_from == from)
		return;
	sender->last_seq = other->last_seq, sender->last_ack = other->last_ack;
	sender->last_end = other->last_end, sender->last_window = other->last_window;
	sender->retransmits = other->retransmits;
	s->last_from = from;
}

/* track judges a TCP segment by the connection. It returns NONE if the
 * segment passes, after recording its numbers. Segments that also change
 * the numbers of the other direction are passed up to user space. */
APART enum reason track(struct __sk_buff *skb, const struct frame *f, struct slot *s, enum side from)
{
	struct way *sender = &s->ways[from], *receiver = &s->ways[!from];
	__u32 end, sack = f->ack;

	if ((f->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK | TCP_URG)) != TCP_ACK)
		return FLAGS;
	if (f->tcp_header < TCP_HEADER || f->tcp_header > body(f))
		return HEADER;
	end = f->seq + body(f) - f->tcp_header;
	if (s->sack[!from] && !highest_ack(skb, f, &sack))
		return WINDOW;
	switch (fits(f, sender, receiver, end, sack)) {
	case CURRENT:
		if (after(end, sender->max_end))
			return WINDOW;
		note(f, s, from, end, sack);
		return NONE;
	case BEYOND:
		return WINDOW;
	case OUT:
		break;
	}
	if (!(s->flags[from] & LIBERAL))
		return WINDOW;
	note_sender(s, from);
	return NONE;
}
