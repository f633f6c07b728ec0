/* Order: a frame must not overtake those of its flow that are on their way through
 * user space. What goes up is counted here, of unknown flows too; what left user space,
 * by the programs at the TAPs' ingress. Where both agree, nothing is on its way. What
 * user space drops never leaves: then both are made to agree when nothing went up for a
 * while, or by user space (fastpath.FastPath.Upkeep). A flood of unknown flows that are
 * dropped would keep all from agreeing: so each unknown flow begins its order anew, and
 * where an entry has it, none counts. Fragments but the first have no
 * ports, so all those between two addresses count together. They may leave as the
 * datagram that the kernel is to cut into them (tun/ufo), and count as many then. */

#define MILLISECOND 1000000ULL
#define SECOND (1000 * MILLISECOND)

/* What went up has left user space, or is lost, after this time. */
#define DRAIN ((__s64)(250 * MILLISECOND))

/* What left user space has left the NIC, too, after this time: another CPU may send it. */
#define SENT ((__s64)(10 * MILLISECOND))

/* datagram_key is the key of a fragment's datagram (stack's key). Fragments of an IPv6
 * datagram may differ in protocol. */
static __always_inline void datagram_key(const struct frame *f, enum side from, struct flow_key *k)
{
	*k = f->key;
	k->ports = (__u64)f->id << 32 | (f->ipv6 ? 0 : f->protocol << 8) | from << 1 | f->ipv6;
	k->vlans = f->vlans;
}

/* by_pair reports whether a frame is counted by its addresses, because the ports of its flow are
 * not known. */
static __always_inline int by_pair(const struct frame *f)
{
	return f->fragment || f->fragments || f->portless;
}

/* order_hash returns the hash of what a frame is counted with: its flow from a side, or the
 * frames without ports between its addresses. */
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

/* order_of returns the order that counts a frame; 0 where it counts by none. An unknown
 * flow begins it only as it goes up. */
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

/* count_done counts what left, unless it did not go up: user space sends some of its
 * own, and did not count as known what went up before the entry was made. */
static __always_inline void count_done(const struct frame *f, struct order *o)
{
	o->last_done = bpf_ktime_get_coarse_ns();
	if (o->up != o->done)
		__sync_fetch_and_add(&o->done, segments(f));
}

/* idle reports whether nothing is on its way. */
static __always_inline int idle(struct order *o, __u64 now)
{
	if (o->up == o->done || now < o->forced)
		return 1;
	if ((__s64)(now - o->last_up) < DRAIN) /* user space's clock is a little ahead */
		return 0;
	o->done = o->up;
	return 1;
}

/* in_order reports whether nothing of a flow is on its way through user space. Of whole
 * packets, the one that left last may still be on its way to the NIC: to wait for that,
 * too, would keep a flow that waits for each answer from ever being forwarded here. */
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

/* rise counts a frame that goes up; known says whether its flow has an entry, or it is
 * a fragment. */
static __always_inline int rise(const struct config *c, const struct frame *f, enum side from, enum reason why, int known)
{
	struct order *o = order_of(c, f, from, known, 1);

	if (o)
		count_up(f, o);
	return up(from, why);
}

/* is_idle reports whether the flow table may have forgotten the flow. */
static __always_inline int is_idle(const struct slot *s, __u64 now)
{
	__u64 inside = s->ways[INSIDE].seen, outside = s->ways[OUTSIDE].seen;
	__u64 seen = inside > outside ? inside : outside;

	return s->idle && now > seen && now - seen > s->idle;
}
