/* The programs of a TAP. They select the queue of a frame, shed frames in an overload, and copy
 * fragments into a ring in memory, by which they reach the lane instead of through the queue.
 *
 *     NIC ──► collect ── fragment ──► ring ──────────┐
 *                │                                   ▼
 *                └── all else ──► steer ──► shed ──► queue ──► lane
 *
 * steer and shed run in the TAP (TUNSETSTEERINGEBPF, TUNSETFILTEREBPF). collect runs at the
 * ingress of the NIC (TCX), after the program of the fast path. */

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Results of TCX programs (Linux 6.6), which have the numbers of tc's. */
#define TCX_NEXT TC_ACT_UNSPEC
#define TCX_DROP TC_ACT_SHOT

#include "layout.h"
#include "packet.h"
#include "../../../fastpath/bpf/partial.h"
#include "shed.h"
#include "ring.h"

/* steer returns a 16-bit number. The kernel divides it by the number of queues, and the remainder
 * is the queue. */
SEC("socket")
int steer(struct __sk_buff *skb)
{
	struct headers h;

	load_ip(skb, &h);
	return queue_number(&h);
}

/* The result of a TAP's filter is the number of bytes of the frame that enter the queue. */
#define ALL 0x7fffffff

SEC("socket")
int shed(struct __sk_buff *skb)
{
	struct queue *q = queue_at(skb->queue_mapping);

	if (!q)
		return ALL;
	switch (judge(skb, q)) {
	case PASS:
		__sync_fetch_and_add(&q->in, 1ULL << QUEUED_SHIFT);
		return ALL;
	case SHED:
		__sync_fetch_and_add(&q->shed, 1);
		return 0;
	default:
		return 0;
	}
}

SEC("tc")
int collect(struct __sk_buff *skb)
{
	return put(skb);
}

char license_text[] SEC("license") = "Apache-2.0";
