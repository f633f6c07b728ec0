/* By default the kernel drops each frame that arrives while the queue is full. Under an overload
 * of fragments, every datagram then loses some, and the lane reads the others in vain. These
 * functions shed whole datagrams instead, before they cost the lane anything: while a queue and
 * its ring hold more frames than a mark, they refuse the first fragment of a datagram that
 * arrives, and then all others of it. Sources with credit, which have sent accepted datagrams,
 * have a higher mark, so that a flood of other sources leaves room for them. The higher mark also
 * applies to whole packets, so that a flood of whole packets costs datagrams no more than it
 * costs whole packets. */

#define SHARED_ARRAY(name, entries, of)            \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, entries);      \
		__type(key, __u32);                \
		__type(value, of);                 \
	} name SEC(".maps")

SHARED_ARRAY(queues, 1, struct queue); /* user space sets the number of queues */
SHARED_ARRAY(credits, 1 << CREDIT_BITS, __s64);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << DECISION_BITS);
	__type(key, __u32);
	__type(value, struct decisions);
} decisions SEC(".maps");

/* The verdict on a frame. */
enum fate {
	PASS,
	SHED, /* refused with its datagram */
	FULL, /* refused because there is no room */
};

static __always_inline struct queue *queue_at(__u32 number)
{
	return bpf_map_lookup_elem(&queues, &number);
}

/* backlog returns the number of frames in the queue and its ring, plus one for a new frame. */
static __always_inline __s32 backlog(const struct queue *q)
{
	__u64 in = *(volatile __u64 *)&q->in;

	return (__u32)(in >> QUEUED_SHIFT) - q->taken + (__u32)in - q->freed + 1;
}

/* holds reports whether one of two decisions applies to the datagram and is still valid. */
static __always_inline int holds(const __u64 *two, __u64 decision)
{
	UNROLLED
	for (int i = 0; i < 2; i++)
		if (two[i] >> 32 == decision >> 32 && (__u32)decision - (__u32)two[i] <= decision_time)
			return 1;
	return 0;
}

static __always_inline void note(__u64 *two, __u64 decision)
{
	two[1] = two[0];
	two[0] = decision;
}

/* admits decides on a datagram of which this is the first fragment to arrive. */
static __always_inline int admits(const struct fragment *f, __s32 waiting, __u64 decision)
{
	__u32 place = mix(hash_key + f->prefix) >> (64 - CREDIT_BITS);
	__s64 *credit;

	if (waiting <= SHED_MARK)
		return 1;
	if (waiting > OPEN_MARK)
		return 0;
	credit = bpf_map_lookup_elem(&credits, &place);
	if (!credit)
		return 0;
	if (*credit > 0) {
		__sync_fetch_and_add(credit, -1);
		return 1;
	}
	/* A newcomer is chosen by hash and time, so that all its fragments have the same result. */
	return mix(decision >> NEWCOMER_SHIFT) >> (64 - NEWCOMER_BITS) == 0;
}

static __always_inline enum fate judge_fragment(struct queue *q, const struct fragment *f, __s32 waiting)
{
	__u32 now = bpf_ktime_get_ns() >> TIME_SHIFT;
	__u32 place = f->hash & ((1 << DECISION_BITS) - 1);
	__u64 decision = f->hash >> 32 << 32 | now;
	struct decisions *d = bpf_map_lookup_elem(&decisions, &place);

	if (now - (__u32)q->last_refusal > decision_time)
		q->last_refusal = 0;
	if (!d || holds(d->admitted, decision))
		return PASS;
	if (holds(d->refused, decision))
		return SHED;
	if (admits(f, waiting, decision)) {
		note(d->admitted, decision);
		return PASS;
	}
	note(d->refused, decision);
	q->last_refusal = now;
	return SHED;
}

/* is_quiet reports whether every frame passes, of whatever kind. */
static __always_inline int is_quiet(const struct queue *q, __s32 waiting)
{
	return waiting <= QUIET_MARK && !q->last_refusal;
}

/* judge decides on a frame. A frame that it cannot decode is treated like a whole packet, because
 * the lane decides on it. */
static __always_inline enum fate judge(struct __sk_buff *skb, struct queue *q)
{
	__s32 waiting = backlog(q);
	struct fragment f;
	struct headers h;

	if (waiting > QUEUE_LENGTH)
		return FULL;
	if (is_quiet(q, waiting))
		return PASS;
	load_ip(skb, &h);
	if (read_fragment(&h, &f))
		return judge_fragment(q, &f, waiting);
	return waiting > OPEN_MARK ? FULL : PASS;
}
