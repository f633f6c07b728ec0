/* Order: a frame must not overtake those of its flow that are on their way through
 * user space. What went up is counted here; what left user space, by the programs at
 * the TAPs' ingress. Where both agree, nothing is on its way. User space corrects the
 * difference by what got lost (fastpath.FastPath.Upkeep). Fragments but the first have
 * no ports, so all those between two addresses count together. They may leave as the
 * datagram that the kernel is to cut into them (tun/ufo), and count as many then. */

#define MILLISECOND 1000000ULL
#define SECOND (1000 * MILLISECOND)

/* What went up has left user space, or is lost, after this time. */
#define DRAIN ((__s64)(250 * MILLISECOND))

/* datagram_key is the key of a fragment's datagram (stack's key). Fragments of an IPv6
 * datagram may differ in protocol. */
static __always_inline void datagram_key(const struct frame *f, enum side from, struct flow_key *k)
{
	*k = f->key;
	k->ports = (__u64)f->id << 32 | (f->ipv6 ? 0 : f->protocol << 8) | from << 1 | f->ipv6;
	k->vlans = f->vlans;
}

/* pair_of returns the order of fragments between a frame's addresses. */
static __always_inline struct order *pair_of(const struct config *c, const struct frame *f, enum side from)
{
	struct flow_key k = f->key;
	__u32 i;

	k.ports = (f->ipv6 ? 0 : f->protocol << 8) | from << 1 | f->ipv6;
	k.vlans = 0;
	i = hash(c, &k) % PAIRS;
	return bpf_map_lookup_elem(&pairs, &i);
}

static __always_inline void count_up(const struct frame *f, struct order *o)
{
	o->last_up = bpf_ktime_get_coarse_ns();
	__sync_fetch_and_add(&o->up, segments(f));
}

static __always_inline void count_done(const struct frame *f, struct order *o)
{
	__u32 n = segments(f);
	__u32 done = __sync_fetch_and_add(&o->done, n) + n;
	__s32 difference = o->up - done;

	if (difference < o->least)
		o->least = difference;
}

/* idle reports whether nothing is on its way. */
static __always_inline int idle(struct order *o, __u64 now)
{
	if ((o->calibrated && o->up == o->done) || now < o->forced)
		return 1;
	if ((__s64)(now - o->last_up) < DRAIN) /* user space's clock is a little ahead */
		return 0;
	o->done = o->up;
	o->calibrated = 1;
	return 1;
}

/* in_order reports whether nothing of a flow is on its way through user space. */
static __always_inline int in_order(struct slot *s, enum side from, __u64 now)
{
	struct order *fragments = bpf_map_lookup_elem(&pairs, &s->pair[from]);

	return fragments && idle(fragments, now) && idle(&s->ways[from].order, now);
}

/* rise counts a whole packet of a known flow that goes up. */
static __always_inline int rise(const struct frame *f, struct way *w, enum side from, enum reason why)
{
	count_up(f, &w->order);
	return up(from, why);
}

/* is_idle reports whether the flow table may have forgotten the flow. */
static __always_inline int is_idle(const struct slot *s, __u64 now)
{
	__u64 inside = s->ways[INSIDE].seen, outside = s->ways[OUTSIDE].seen;
	__u64 seen = inside > outside ? inside : outside;

	return s->idle && now > seen && now - seen > s->idle;
}
