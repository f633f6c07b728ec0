/* The rings, one per queue of the TAP. A program copies a fragment into memory that the lane has
 * mapped, so that the lane needs no system call to read it from the queue. All other frames go
 * into the queue. A fragment also goes into the queue if the ring is full, or if the lane sleeps,
 * because a frame in the queue wakes the lane.
 *
 * Both paths count in queue.in. The lane reads the frames of the queue and the records of the ring
 * in the order in which they were counted. */

#define RETRIES 4 /* of a compare-and-swap that another CPU won */

SHARED_ARRAY(records, 1, struct record); /* ring_records for each queue */

/* reserve reserves a record of the ring. It returns 0 if there is none. */
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

/* copy_frame copies a frame, including the tag that the kernel keeps in its metadata, as user space
 * reads it from the queue. It returns the length in bytes, or 0 if it cannot copy the frame. */
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

/* is_plain reports whether a frame fits a record, and needs no segmentation or checksum by a NIC:
 * a record's virtio-net header cannot request these. */
static __always_inline int is_plain(struct __sk_buff *skb)
{
	return !skb->gso_size && skb->len <= RECORD_FRAME - VLAN_TAG && !is_partial(skb);
}

static __always_inline struct record *record_at(__u32 queue, __u32 number)
{
	__u32 place = queue * ring_records + (number & (ring_records - 1));

	return bpf_map_lookup_elem(&records, &place);
}

/* put handles a frame that arrived on the NIC: it puts a fragment into the ring or sheds it, and
 * lets all other frames continue to the TAP. */
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
		return TCX_NEXT; /* never happens */
	r->queued = in >> QUEUED_SHIFT;
	/* If the lane fell asleep before the reservation, it does not know of this record. */
	length = is_awake(q) ? copy_frame(skb, r->frame) : 0;
	__sync_lock_test_and_set(&r->length, length ? length : SKIPPED);
	return length ? TCX_DROP : TCX_NEXT;
}
