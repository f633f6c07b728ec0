/* The fast path: what user space decided of a flow, carried out in front of it.
 *
 *  1. frame.h: decode; what is not of a common shape goes up, to user space;
 *  2. find the flow, and what was decided of it by the policy in force;
 *  3. tracking.h: is the datagram well-formed, the TCP segment the next one?
 *  4. order.h: is nothing of the flow still on its way through user space?
 *  5. count, and redirect to the other side.
 *
 * fragment.h has what becomes of fragments. Programs at the TAPs' ingress count what
 * user space sent. Whatever is not forwarded or dropped here goes on as if there were
 * no fast path. */

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Results of TCX programs (Linux 6.6), which have the numbers of tc's. */
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

/* drop carries out a verdict of denial; one frame a second goes up for an event. */
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

/* accept carries out a verdict of acceptance on a whole packet, unless it is for user
 * space to judge. */
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
	/* A full barrier: whoever stops the flow sees the numbers that were noted, or is
	 * seen here. */
	__sync_lock_test_and_set(&w->seen, now);
	if (!(*(volatile __u32 *)&s->flags[from] & ACCEPT))
		return rise(c, f, from, POLICY, 1);
	count(f, w);
	return forward(skb, c, from);
}

/* ready reports whether frames from a side may be forwarded at all. */
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

/* is_known reports whether a frame is counted also if other flows share its count: it has an
 * entry, or is counted by its addresses. */
static __always_inline int is_known(const struct frame *f)
{
	return by_pair(f) || bpf_map_lookup_elem(&flows, &f->key);
}

/* take decides on a frame that came in by a side. What goes up is counted also where
 * nothing is forwarded, so that order is known once something may be again. */
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

/* leave counts a frame that user space sent, which came in by the other side. */
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
