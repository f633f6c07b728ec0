/* The fast path applies verdicts of user space to frames before these reach user space.
 *
 *  1. frame.h: decode; frames of an uncommon shape are passed up to user space;
 *  2. find the flow, and the verdict on it by the policy in force;
 *  3. tracking.h: check that the datagram is well-formed, and the TCP segment the next one;
 *  4. order.h: check that no frame of the flow is still in user space;
 *  5. count, and redirect to the other side.
 *
 * fragment.h handles fragments. The programs at the TAPs' ingress count the frames that user
 * space sends. Frames that are neither forwarded nor dropped here take the same way as without
 * a fast path. */

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Results of TCX programs (Linux 6.6). The numbers are those of tc. */
#define TCX_NEXT TC_ACT_UNSPEC
#define TCX_DROP TC_ACT_SHOT

#include "layout.h"
#include "maps.h"
#include "frame.h"
#include "order.h"
#include "partial.h"
#include "tracking.h"
#include "fragment.h"

static __always_inline void count(const struct frame *f, struct way *w)
{
	__sync_fetch_and_add(&w->frames, 1);
	__sync_fetch_and_add(&w->frame_bytes, f->bytes);
	__sync_fetch_and_add(&w->datagrams, 1);
	__sync_fetch_and_add(&w->datagram_bytes, f->length);
}

/* drop applies a verdict to drop. One frame per second is passed up, for an event. */
static __always_inline int drop(const struct config *c, const struct frame *f, enum side from, struct way *w, __u64 now)
{
	if (c->flags & SAMPLE_DROPS && now - w->sampled >= SECOND) {
		w->sampled = now;
		return up(from, SAMPLE);
	}
	w->seen = now;
	count(f, w);
	return TCX_DROP;
}

/* accept applies a verdict to accept to a whole packet, unless user space must judge the
 * packet. */
static __always_inline int accept(struct __sk_buff *skb, const struct config *c, const struct frame *f, enum side from,
				  struct slot *s, __u64 now)
{
	struct way *w = &s->ways[from];
	enum reason why;

	if (!in_order(c, s, from, now))
		return rise(c, f, from, ORDER, 1);
	if (is_idle(s, now))
		return rise(c, f, from, UNKNOWN_FLOW, 1);
	if (c->flags & STATEFUL) {
		if (!well_formed(skb, f))
			return rise(c, f, from, CHECKSUM, 1);
		if (s->flags[from] & TRACKED && (why = track(skb, f, s, from)) != NONE)
			return rise(c, f, from, why, 1);
	}
	/* A full barrier: user space, when it stops the flow, either sees the recorded
	 * numbers, or this program sees the change. */
	__sync_lock_test_and_set(&w->seen, now);
	if (!(*(volatile __u32 *)&s->flags[from] & ACCEPT))
		return rise(c, f, from, POLICY, 1);
	count(f, w);
	return forward(skb, c, from);
}

/* ready reports whether frames that arrive on a side may be forwarded at all. */
static __always_inline int ready(const struct config *c, enum side from)
{
	const __u32 need = RUNNING | (from == INSIDE ? OUTSIDE_UP : INSIDE_UP);

	return (c->flags & need) == need && c->egress[!from];
}

/* is_counted reports whether a frame is counted: its flow is known, or at least its addresses. */
static __always_inline int is_counted(const struct frame *f, enum reason why)
{
	return why == NONE || f->udp_segments || by_pair(f);
}

/* is_known reports whether a frame is counted even if other flows share its order: its flow
 * has an entry, or the frame is counted by its addresses. */
static __always_inline int is_known(const struct frame *f)
{
	return by_pair(f) || bpf_map_lookup_elem(&flows, &f->key);
}

/* take decides on a frame that arrived on a side. Frames that are passed up are counted even
 * while nothing is forwarded, so that the order is known when forwarding starts. */
static __always_inline int take(struct __sk_buff *skb, enum side from)
{
	const struct config *c = configuration();
	struct frame f = {};
	enum reason why;
	__u32 *number;
	struct slot *s;

	if (!c)
		return TCX_NEXT;
	why = read_frame(skb, &f, from);
	f.fragments = 0; /* only user space marks these */
	if (why != NONE && c->flags & VALIDATE)
		note_fragment(skb, c, &f, from);
	if (!is_counted(&f, why))
		return up(from, why);
	if (!(c->flags & ANY_VLANS))
		f.key.vlans = f.vlans;
	if (why != NONE)
		return rise(c, &f, from, why, is_known(&f));
	if (f.fragment)
		return take_fragment(skb, c, &f, from, ready(c, from));
	number = bpf_map_lookup_elem(&flows, &f.key);
	s = number ? slot_at(*number) : 0;
	if (!s)
		return rise(c, &f, from, UNKNOWN_FLOW, 0);
	if (!ready(c, from))
		return rise(c, &f, from, SUSPENDED, 1);
	if (s->generation[from] != c->generation || !(s->flags[from] & WHOLE))
		return rise(c, &f, from, POLICY, 1);
	if (!fits_egress(&f, c->mtu[!from]))
		return rise(c, &f, from, SIZE, 1);
	if (s->flags[from] & ACCEPT)
		return accept(skb, c, &f, from, s, bpf_ktime_get_coarse_ns());
	return drop(c, &f, from, &s->ways[from], bpf_ktime_get_coarse_ns());
}

/* leave counts a frame that user space sent, and that arrived on the other side. */
static __always_inline int leave(struct __sk_buff *skb, enum side from)
{
	const struct config *c = configuration();
	struct frame f = {};
	enum reason why;
	struct order *o;

	if (skb->tc_index == FORWARDED) {
		skb->tc_index = 0;
		return TCX_NEXT;
	}
	if (!c)
		return TCX_NEXT;
	why = read_frame(skb, &f, from);
	f.fragments &= why == SEGMENTS;
	f.udp_segments &= !f.fragments;
	if (!is_counted(&f, why))
		return TCX_NEXT;
	if (!(c->flags & ANY_VLANS))
		f.key.vlans = f.vlans;
	o = order_of(c, &f, from, is_known(&f), 0);
	if (o)
		count_done(&f, o);
	return TCX_NEXT;
}

SEC("tc")
int from_inside(struct __sk_buff *skb)
{
	return take(skb, INSIDE);
}

SEC("tc")
int from_outside(struct __sk_buff *skb)
{
	return take(skb, OUTSIDE);
}

SEC("tc")
int to_inside(struct __sk_buff *skb)
{
	return leave(skb, OUTSIDE);
}

SEC("tc")
int to_outside(struct __sk_buff *skb)
{
	return leave(skb, INSIDE);
}

char license_text[] SEC("license") = "Apache-2.0";
