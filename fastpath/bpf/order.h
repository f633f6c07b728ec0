/* Order: a frame must not overtake earlier frames of its flow that are still in user space. The
 * programs at ingress count the frames that they pass up, also those of unknown flows; the
 * programs at the TAPs' ingress count the frames that left user space. If both counts agree, no
 * frame is in user space. Frames that user space drops never leave it. Then the counts are made
 * equal when nothing was passed up for a while, or by user space (fastpath.FastPath.Upkeep). A
 * flood of dropped unknown flows would keep the counts apart. So each unknown flow resets its
 * order, and an order that an entry uses counts no unknown flows. Frames whose ports are not
 * read, such as fragments, are counted by their two addresses. Fragments may leave as one
 * datagram that the kernel then fragments (tun/ufo), which counts as all of them. */

#define MILLISECOND 1000000ULL
#define SECOND (1000 * MILLISECOND)

/* After this time without a further frame, all that were passed up have left or are lost. */
#define DRAIN ((__s64)(250 * MILLISECOND))

/* After this time, frames that left user space have left the NIC too, even from another CPU. */
#define SENT ((__s64)(10 * MILLISECOND))

/* datagram_key makes the key of a fragment's datagram (key in package stack). Fragments of an
 * IPv6 datagram may have different protocols. */
static __always_inline void datagram_key(const struct frame *f, enum side from, struct flow_key *k)
{
	*k = f->key;
	k->ports = (__u64)f->id << 32 | (f->ipv6 ? 0 : f->protocol << 8) | from << 1 | f->ipv6;
	k->vlans = f->vlans;
}

/* by_pair reports whether a frame is counted by its addresses, because the ports of its flow
 * are not known. */
static __always_inline int by_pair(const struct frame *f)
{
	return f->fragment || f->fragments || f->portless;
}

/* order_hash returns the hash that a frame is counted under: that of its flow and side or,
 * without ports, of its addresses and side. */
APART __u32 order_hash(const struct config *c, const struct frame *f, enum side from)
{
	struct flow_key k = f->key;

	if (by_pair(f)) {
		k.ports = (f->ipv6 ? 0 : f->protocol << 8) | from << 1 | f->ipv6;
		k.vlans = 0;
	} else {
		k.vlans |= (__u64)from << 63;
	}
	return hash(c, &k);
}

/* order_of returns the order that counts a frame, or 0 if none does. An unknown flow resets an
 * order only when its frame is passed up. */
static __always_inline struct order *order_of(const struct config *c, const struct frame *f, enum side from, int known, int begins)
{
	__u32 flow = order_hash(c, f, from);
	__u32 i = by_pair(f) ? ORDERS + flow % PAIRS : flow % ORDERS;
	struct order *o = bpf_map_lookup_elem(&orders, &i);

	if (!o || known)
		return o;
	if (o->entries || (o->flow != flow && !begins))
		return 0;
	if (o->flow != flow) {
		o->flow = flow;
		o->done = o->up;
	}
	return o;
}

static __always_inline void count_up(const struct frame *f, struct order *o)
{
	o->last_up = bpf_ktime_get_coarse_ns();
	__sync_fetch_and_add(&o->up, segments(f));
}

/* count_done counts a frame that left, unless all are counted: user space also sends frames of
 * its own, and frames that were passed up before the entry was made. */
static __always_inline void count_done(const struct frame *f, struct order *o)
{
	o->last_done = bpf_ktime_get_coarse_ns();
	if (o->up != o->done)
		__sync_fetch_and_add(&o->done, segments(f));
}

/* idle reports whether no frame is in user space. */
static __always_inline int idle(struct order *o, __u64 now)
{
	if (o->up == o->done || now < o->forced)
		return 1;
	if ((__s64)(now - o->last_up) < DRAIN) /* user space's clock is a little ahead */
		return 0;
	o->done = o->up;
	return 1;
}

/* in_order reports whether no frame of a flow is in user space. The whole packet that left
 * last may still be on its way to the NIC. Waiting for it too would mean that a flow which
 * waits for each answer is never forwarded here. */
static __always_inline int in_order(const struct config *c, struct slot *s, enum side from, __u64 now)
{
	struct order *fragments = bpf_map_lookup_elem(&orders, &s->pair[from]);
	struct order *packets = bpf_map_lookup_elem(&orders, &s->order[from]);

	if (now < s->ways[from].held || now < c->uncounted)
		return 0;
	if (!fragments || !packets || !idle(packets, now))
		return 0;
	return now < fragments->forced || (idle(fragments, now) && (__s64)(now - fragments->last_done) >= SENT);
}

/* rise counts a frame and passes it up. known is set if its flow has an entry, or if it is
 * counted by its addresses. */
static __always_inline int rise(const struct config *c, const struct frame *f, enum side from, enum reason why, int known)
{
	struct order *o = order_of(c, f, from, known, 1);

	if (o)
		count_up(f, o);
	return up(from, why);
}

/* is_idle reports whether the flow may have expired in the flow table. */
static __always_inline int is_idle(const struct slot *s, __u64 now)
{
	__u64 inside = s->ways[INSIDE].seen, outside = s->ways[OUTSIDE].seen;
	__u64 seen = inside > outside ? inside : outside;

	return s->idle && now > seen && now - seen > s->idle;
}
