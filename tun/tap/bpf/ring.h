/* The rings, one for each queue of the TAP: a fragment is copied into memory that the lane
 * has mapped, instead of a system call that reads it from the queue. Whatever is no
 * fragment goes into the queue. So does a fragment while the lane sleeps, which a frame in
 * the queue wakes, and where there is no room in the ring.
 *
 * Both ways share the count in queue.in: the lane takes in frames of the queue and
 * records of the ring in the order in which they were counted. */

#define RETRIES 4 /* of a change that another CPU was faster with */

SHARED_ARRAY(records, 1, struct record); /* ring_records for each queue */

/* reserve takes a place in the ring. It reports false where there is none. */
static __always_inline int reserve(struct queue *q, __u64 *in)
{
	UNROLLED
	for (int i = 0; i < RETRIES; i++) {
		__u64 now = *(volatile __u64 *)&q->in;
		__u64 next = now >> QUEUED_SHIFT << QUEUED_SHIFT | (__u32)(now + 1);

		if ((__u32)now - *(volatile __u32 *)&q->freed >= ring_records)
			return 0;
		if (__sync_val_compare_and_swap(&q->in, now, next) == now) {
			*in = now;
			return 1;
		}
	}
	return 0;
}

/* copy_frame copies a frame, with a tag that the kernel keeps beside it, as user space
 * gets it from the queue. It returns the length, or 0. */
static __always_inline __u32 copy_frame(struct __sk_buff *skb, __u8 *to)
{
	const __u32 addresses = ETHERTYPE;
	__u32 n = skb->len;

	if (n < ETH_HEADER || n > RECORD_FRAME - VLAN_TAG)
		return 0;
	if (!skb->vlan_present)
		return bpf_skb_load_bytes(skb, 0, to, n) ? 0 : n;
	if (bpf_skb_load_bytes(skb, 0, to, addresses))
		return 0;
	*(__be16 *)(to + addresses) = skb->vlan_proto;
	*(__be16 *)(to + addresses + 2) = bpf_htons(skb->vlan_tci);
	n -= addresses;
	if (n < ETH_HEADER - ETHERTYPE || n > RECORD_FRAME - VLAN_TAG - ETHERTYPE)
		return 0;
	return bpf_skb_load_bytes(skb, addresses, to + addresses + VLAN_TAG, n) ? 0 : n + addresses + VLAN_TAG;
}

static __always_inline int is_awake(const struct queue *q)
{
	return *(const volatile __u32 *)&q->awake;
}

/* is_plain reports whether a frame is all that there is to it: nothing is left for a NIC
 * to do, which a ring would not say, and it fits a record. */
static __always_inline int is_plain(struct __sk_buff *skb)
{
	return !skb->gso_size && skb->len <= RECORD_FRAME - VLAN_TAG && !is_partial(skb);
}

static __always_inline struct record *record_at(__u32 queue, __u32 number)
{
	__u32 place = queue * ring_records + (number & (ring_records - 1));

	return bpf_map_lookup_elem(&records, &place);
}

/* put decides on a frame that came in by the NIC: a fragment goes into the ring, or is
 * shed; all else goes on to the TAP. */
static __always_inline int put(struct __sk_buff *skb)
{
	struct fragment f;
	struct headers h;
	struct record *r;
	struct queue *q;
	__u32 queue, length;
	__s32 waiting;
	__u64 in;

	load_ip(skb, &h);
	if (!read_fragment(&h, &f))
		return TCX_NEXT;
	queue = queue_number(&h) % queue_count;
	q = queue_at(queue);
	if (!q || !is_awake(q) || !is_plain(skb))
		return TCX_NEXT;
	waiting = backlog(q);
	if (waiting > QUEUE_LENGTH)
		return TCX_NEXT;
	if (!is_quiet(q, waiting) && judge_fragment(q, &f, waiting) == SHED) {
		__sync_fetch_and_add(&q->collect_shed, 1);
		return TCX_DROP;
	}
	if (!reserve(q, &in))
		return TCX_NEXT;
	r = record_at(queue, in);
	if (!r)
		return TCX_NEXT; /* there is one */
	r->queued = in >> QUEUED_SHIFT;
	/* A lane that fell asleep before the place was taken does not know of it. */
	length = is_awake(q) ? copy_frame(skb, r->frame) : 0;
	__sync_lock_test_and_set(&r->length, length ? length : SKIPPED);
	return length ? TCX_DROP : TCX_NEXT;
}
