/* The maps. User space sets the numbers of entries. */

/* APART gives a function its own stack frame: without CAP_PERFMON, a spilled
 * pointer must not be partly overwritten, which clang does in long functions. */
#define APART static __attribute__((noinline))

#define ORDERS 32768 /* for whole packets */
#define PAIRS 4096 /* for fragments; they follow those for whole packets */
#define RETRIES 4 /* of a change that another CPU made first */

/* UNROLLED unrolls a loop, so that the verifier sees no backward jump: without
 * CAP_PERFMON it also follows speculative execution, in which a loop would never end. */
#define UNROLLED _Pragma("clang loop unroll(full)")

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, __u32); /* slot */
} flows SEC(".maps");

#define SHARED_ARRAY(name, entries, of)             \
	struct {                                    \
		__uint(type, BPF_MAP_TYPE_ARRAY);   \
		__uint(map_flags, BPF_F_MMAPABLE);  \
		__uint(max_entries, entries);       \
		__type(key, __u32);                 \
		__type(value, of);                  \
	} name SEC(".maps")

SHARED_ARRAY(configs, 1, struct config);
SHARED_ARRAY(slots, 1, struct slot);
SHARED_ARRAY(fragments, 1, struct fragment_slot);
SHARED_ARRAY(cpu_totals, 1, struct totals);
SHARED_ARRAY(passed, COUNTS, __u64); /* COUNTS for each CPU */
SHARED_ARRAY(common, 1, struct shared);
SHARED_ARRAY(orders, ORDERS + PAIRS, struct order); /* by order_of() */

/* Memory to compute a checksum. */
#define CHUNK 512

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[CHUNK]);
} scratch SEC(".maps");

/* Value of skb->tc_index in frames that user space did not send. */
#define FORWARDED 0xf4a9

static __always_inline const struct config *configuration(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&configs, &first);
}

static __always_inline struct slot *slot_at(__u32 number)
{
	struct slot *s = bpf_map_lookup_elem(&slots, &number);

	barrier_var(s); /* clang would add offsets before s is known to be one */
	return s;
}

static __always_inline struct totals *totals_here(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&cpu_totals, &cpu);
}

/* up counts a frame that is passed up to user space. */
static __always_inline int up(enum side from, enum reason why)
{
	__u32 i = bpf_get_smp_processor_id() * COUNTS + from * COUNTS_SIDE + why;
	__u64 *n = bpf_map_lookup_elem(&passed, &i);

	if (n)
		*n += 1;
	return TCX_NEXT;
}

/* hash is fastpath.hash. It is keyed, so that no sender can choose which keys collide. */
static __always_inline __u64 mix(__u64 h, __u64 word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15ULL;
	return h ^ h >> 32;
}

static __always_inline __u32 hash(const struct config *c, const struct flow_key *k)
{
	__u64 h = mix(c->secret[0], k->inside[0]);

	h = mix(h, k->inside[1]);
	h = mix(h, k->outside[0]);
	h = mix(h, k->outside[1]);
	h = mix(h, k->ports);
	h = mix(h, k->vlans);
	return mix(h, c->secret[1]) >> 32;
}

/* forward sends a frame out of the other side. */
static __always_inline int forward(struct __sk_buff *skb, const struct config *c, enum side from)
{
	if (c->redirect[!from] & BPF_F_INGRESS)
		skb->tc_index = FORWARDED;
	return bpf_redirect(c->egress[!from], c->redirect[!from]);
}
