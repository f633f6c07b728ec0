/* Fragments. The program forwards the fragments of an accepted flow as long as they arrive in
 * order and have the same size. All others, and all later ones of their datagram, are passed
 * up and judged as without the fast path. Fragments that are passed up are recorded too: a
 * first fragment must not be forwarded if user space already has another one of its datagram.
 * If two CPUs compete, the one that changes the word wins. */

#define MAX_EXTENSIONS 4 /* more are not followed */

static __always_inline enum fragment_state state_of(__u64 word)
{
	return word >> STATE_SHIFT & STATE_MASK;
}

static __always_inline __u64 word_of(__u64 use, enum fragment_state state, __u32 next)
{
	return use << USE_SHIFT | (__u64)state << STATE_SHIFT | next;
}

/* moved returns a word of the same use with another state and number of bytes. */
static __always_inline __u64 moved(__u64 word, enum fragment_state state, __u32 next)
{
	return word_of(word >> USE_SHIFT, state, next) | (word & COLLIDED);
}

static __always_inline int change(struct fragment_slot *s, __u64 from, __u64 to)
{
	return __sync_val_compare_and_swap(&s->word, from, to) == from;
}

static __always_inline int same_datagram(const struct flow_key *a, const struct flow_key *b)
{
	return a->inside[0] == b->inside[0] && a->inside[1] == b->inside[1] && a->outside[0] == b->outside[0] &&
	       a->outside[1] == b->outside[1] && a->ports == b->ports && a->vlans == b->vlans;
}

static __always_inline int rise_fragment(const struct config *c, const struct frame *f, enum side from)
{
	return rise(c, f, from, FRAGMENT, 1);
}

/* accepting returns the flow of a first fragment if the fragments of its datagram may be
 * forwarded, otherwise 0. */
static __always_inline struct slot *accepting(const struct config *c, struct frame *f, enum side from, __u32 *number)
{
	const __u32 *found = bpf_map_lookup_elem(&flows, &f->key);
	const __u32 need = FRAGMENTS | ACCEPT;
	struct slot *s = found ? slot_at(*found) : 0;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 first = 0;
	const struct shared *sh = bpf_map_lookup_elem(&common, &first);

	if (!sh || (sh->hidden[from] && now - sh->hidden[from] < c->timeout[0] + c->timeout[1]))
		return 0;
	if (!s || s->generation[from] != c->generation || (s->flags[from] & need) != need)
		return 0;
	if (c->flags & STATEFUL && f->protocol == PROTOCOL_TCP)
		return 0;
	if (c->flags & STATEFUL && f->protocol == PROTOCOL_UDP && f->udp_length < UDP_HEADER)
		return 0;
	if (!fits_egress(f, c->mtu[!from]) || !in_order(c, s, from, now) || is_idle(s, now))
		return 0;
	*number = *found;
	return s;
}

static __always_inline int forward_fragment(struct __sk_buff *skb, const struct config *c, const struct frame *f,
					    enum side from, struct way *w)
{
	w->seen = bpf_ktime_get_coarse_ns();
	__sync_fetch_and_add(&w->frames, 1);
	__sync_fetch_and_add(&w->frame_bytes, f->bytes);
	if (!f->offset) {
		__sync_fetch_and_add(&w->datagrams, 1);
		__sync_fetch_and_add(&w->datagram_bytes, f->length);
	}
	return forward(skb, c, from);
}

/* begin records the fragment of a datagram that arrived first, in a slot that is BUSY for
 * it. */
static __always_inline int begin(struct __sk_buff *skb, const struct config *c, struct frame *f, enum side from,
				 struct fragment_slot *at, __u64 use, const struct flow_key *k, int ready)
{
	enum fragment_state state = f->offset || !fits_egress(f, c->mtu[!from]) ? SLOW : RISING;
	__u32 next = state == SLOW ? 0 : body(f);
	struct slot *flow = 0;
	__u32 number = 0;

	if (!f->offset && ready)
		flow = accepting(c, f, from, &number);
	at->key = *k;
	at->arrived = at->last_up = bpf_ktime_get_coarse_ns();
	at->size = body(f);
	if (flow) {
		state = PASSING;
		at->flow = number;
		at->epoch = flow->epoch;
	}
	__sync_lock_test_and_set(&at->word, word_of(use, state, next));
	if (flow)
		return forward_fragment(skb, c, f, from, &flow->ways[from]);
	return rise_fragment(c, f, from);
}

/* slow_down makes all later fragments of a datagram be passed up. */
static __always_inline void slow_down(struct fragment_slot *at, __u64 use)
{
	UNROLLED
	for (int i = 0; i < RETRIES; i++) {
		__u64 word = *(volatile __u64 *)&at->word;
		enum fragment_state state = state_of(word);

		if (word >> USE_SHIFT != use || (state != PASSING && state != RISING))
			return;
		if (change(at, word, moved(word, SLOW, state == PASSING ? word & NEXT_MASK : 0)))
			return;
	}
}

/* next_word returns the word after a fragment in order. The last fragment frees the slot,
 * unless user space may have fragments of another datagram. */
static __always_inline __u64 next_word(const struct frame *f, __u64 word)
{
	if (f->more)
		return moved(word, state_of(word), f->offset + body(f));
	return word_of(word >> USE_SHIFT, word & COLLIDED ? BLOCKED : EMPTY, 0);
}

/* is_next reports whether a fragment follows the one before it and has the same size, and
 * whether user space would accept it. */
static __always_inline int is_next(const struct config *c, const struct frame *f, enum side from,
				   const struct fragment_slot *at, __u64 word)
{
	__u64 timeout = c->timeout[0];

	barrier(); /* prevents a computed address */
	if (f->ipv6)
		timeout = c->timeout[1];
	return f->offset && f->offset == (word & NEXT_MASK) && fits_egress(f, c->mtu[!from]) &&
	       bpf_ktime_get_coarse_ns() - at->arrived < timeout &&
	       (!f->more || body(f) == at->size) && f->offset < at->size * c->max_fragments;
}

/* proceed handles another fragment of a datagram that has a slot. */
static __always_inline int proceed(struct __sk_buff *skb, const struct config *c, const struct frame *f, enum side from,
				   struct fragment_slot *at, __u64 word, int ready)
{
	enum fragment_state state = state_of(word);
	int next = is_next(c, f, from, at, word);

	if (state == PASSING && next && ready) {
		struct slot *flow = slot_at(at->flow);

		if (flow && flow->epoch == at->epoch && flow->flags[from] & FRAGMENTS && change(at, word, next_word(f, word)))
			return forward_fragment(skb, c, f, from, &flow->ways[from]);
	}
	if (!(state == RISING && next && change(at, word, next_word(f, word))))
		slow_down(at, word >> USE_SHIFT);
	at->last_up = bpf_ktime_get_coarse_ns();
	return rise_fragment(c, f, from);
}

static __always_inline struct fragment_slot *slot_of(const struct config *c, const struct flow_key *k)
{
	__u32 i = hash(c, k) & c->fragment_mask;

	return bpf_map_lookup_elem(&fragments, &i);
}

/* The owner of a slot. */
enum claim {
	LOST, /* another datagram, or none: all fragments are passed up */
	TAKEN,
	OURS,
	CHANGING, /* another CPU is changing it */
};

static __always_inline enum claim try_claim(struct fragment_slot *at, const struct flow_key *k, __u64 *word)
{
	__u64 now = *(volatile __u64 *)&at->word;
	enum fragment_state state = state_of(now);

	*word = now;
	switch (state) {
	case EMPTY:
		*word = word_of((now >> USE_SHIFT) + 1, BUSY, 0);
		return change(at, now, *word) ? TAKEN : CHANGING;
	case BUSY:
		return CHANGING;
	case BLOCKED:
		return LOST;
	default:
		if (same_datagram(&at->key, k))
			return OURS;
		return change(at, now, now | COLLIDED) ? LOST : CHANGING;
	}
}

/* claim returns the owner of a slot. It takes an empty slot, which is then BUSY. If another
 * datagram has the slot, it sets COLLIDED. */
APART enum claim claim(struct fragment_slot *at, const struct flow_key *k, __u64 *word)
{
	enum claim whose = try_claim(at, k, word);

	if (whose == CHANGING)
		whose = try_claim(at, k, word);
	if (whose == CHANGING)
		whose = try_claim(at, k, word);
	return whose;
}

static __always_inline int validate(struct __sk_buff *skb, const struct config *c, struct frame *f, enum side from,
				    int ready)
{
	struct fragment_slot *at;
	struct flow_key k;
	__u64 word = 0;

	datagram_key(f, from, &k);
	at = slot_of(c, &k);
	if (!at)
		return rise_fragment(c, f, from);
	switch (claim(at, &k, &word)) {
	case TAKEN:
		return begin(skb, c, f, from, at, word >> USE_SHIFT, &k, ready);
	case OURS:
		return proceed(skb, c, f, from, at, word, ready);
	default:
		break;
	}
	at->last_up = bpf_ktime_get_coarse_ns();
	return rise_fragment(c, f, from);
}

/* find_fragment looks for a fragment header after other extension headers. */
static __always_inline void find_fragment(struct __sk_buff *skb, struct frame *f)
{
	__u32 at = f->network + IPV6_HEADER;
	__u8 next = f->protocol;

	UNROLLED
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u8 h[FRAGMENT_HEADER];

		if (next != PROTOCOL_FRAGMENT && !is_extension(next))
			return;
		if (bpf_skb_load_bytes(skb, at, h, sizeof(h)))
			return;
		if (next == PROTOCOL_FRAGMENT && load16(h + 2) & (IPV6_OFFSET | IPV6_MORE)) {
			f->fragment = 1;
			f->id = load32(h + 4);
			return;
		}
		at += next == PROTOCOL_AH ? (h[1] + 2) * 4 : next == PROTOCOL_FRAGMENT ? FRAGMENT_HEADER : (h[1] + 1) * 8;
		next = h[0];
	}
	f->hidden = 1;
}

/* note_fragment prevents that a datagram is forwarded when one of its fragments was passed up
 * because of its shape. */
APART void note_fragment(struct __sk_buff *skb, const struct config *c, struct frame *f, enum side from)
{
	__u32 first = 0;
	struct shared *sh = bpf_map_lookup_elem(&common, &first);
	struct fragment_slot *at;
	struct flow_key k;
	__u64 word = 0;

	if (f->ipv6 && !f->fragment)
		find_fragment(skb, f);
	if (f->hidden && sh)
		sh->hidden[from] = bpf_ktime_get_coarse_ns();
	if (!f->fragment)
		return;
	datagram_key(f, from, &k);
	at = slot_of(c, &k);
	if (!at)
		return;
	at->last_up = bpf_ktime_get_coarse_ns();
	switch (claim(at, &k, &word)) {
	case TAKEN:
		at->key = k;
		__sync_lock_test_and_set(&at->word, moved(word, SLOW, 0));
		break;
	case OURS:
		slow_down(at, word >> USE_SHIFT);
		break;
	default:
		break;
	}
}

/* drop_fragment drops a fragment in the mode that drops all. */
static __always_inline int drop_fragment(const struct config *c, const struct frame *f, enum side from)
{
	struct totals *t = totals_here();
	__u32 first = 0;
	struct shared *sh = bpf_map_lookup_elem(&common, &first);
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!t || !sh)
		return up(from, FRAGMENT);
	if (f->length > c->mtu[!from])
		return up(from, SIZE);
	if (c->flags & SAMPLE_DROPS && now - sh->sampled[from] >= SECOND) {
		sh->sampled[from] = now;
		return up(from, SAMPLE);
	}
	__sync_fetch_and_add(&t->fragments[from], 1);
	__sync_fetch_and_add(&t->fragment_bytes[from], f->bytes);
	return TCX_DROP;
}

static __always_inline int take_fragment(struct __sk_buff *skb, const struct config *c, struct frame *f, enum side from,
					 int ready)
{
	if (c->flags & VALIDATE)
		return validate(skb, c, f, from, ready);
	if (c->flags & DROP_FRAGMENTS && ready)
		return drop_fragment(c, f, from);
	return rise_fragment(c, f, from);
}
