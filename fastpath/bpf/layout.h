/* Memory that the programs share with user space. User space maps all of it except
 * the map of flows, so it reads counters and stops entries without a system call.
 * bpf2go makes the Go types from these (-type). Times are in nanoseconds of
 * CLOCK_MONOTONIC. */

#define CACHE_LINE 64

enum side { INSIDE, OUTSIDE, SIDES };

/* Why a frame is passed up to user space: fastpath.Reason. */
enum reason {
	SUSPENDED, NOT_IP, HEADER, PROTOCOL, SIZE, UNKNOWN_FLOW, POLICY, ORDER, FLAGS, WINDOW,
	CHECKSUM, FRAGMENT, SAMPLE, SEGMENTS,
	NONE, /* it is not passed up */
};

enum config_flag {
	RUNNING = 1 << 0,
	STATEFUL = 1 << 1,       /* the policy tracks flows */
	ANY_VLANS = 1 << 2,      /* VLANs do not distinguish flows */
	DROP_FRAGMENTS = 1 << 3, /* no fragment passes */
	VALIDATE = 1 << 4,       /* fragments of accepted flows pass in order */
	SAMPLE_DROPS = 1 << 5,   /* pass up one dropped frame per second and flow */
	INSIDE_UP = 1 << 6,      /* the link of the inside is up */
	OUTSIDE_UP = 1 << 7,
};

struct config {
	__u64 secret[2]; /* key of hash() */
	__u64 timeout[2]; /* of a datagram, IPv4 and IPv6 */
	__u32 generation; /* of the policy in force */
	__u32 flags;
	__u32 fragment_mask; /* number of fragment slots, less one */
	__u32 max_fragments; /* of a datagram */
	__u32 mtu[SIDES]; /* by egress side */
	__u32 egress[SIDES]; /* interface index by egress side; 0: none */
	__u32 redirect[SIDES]; /* flags of bpf_redirect: BPF_F_INGRESS for a pod's own TAP */
	__u64 uncounted; /* until then frames that were not counted may be in the queue of a TAP */
};

/* The key of a flow, the same for both directions: flow.Key. Numbers are in host order. */
struct flow_key {
	__u64 inside[2], outside[2]; /* addresses; IPv4 as ::ffff:a.b.c.d */
	__u64 ports; /* 16 bits of inside port, 16 of outside port, 8 of protocol, 8 of version */
	__u64 vlans;
};

/* The verdict on a way, in slot.flags. */
enum way_flag {
	WHOLE = 1 << 0,     /* applies to whole packets */
	FRAGMENTS = 1 << 1, /* applies to datagrams in fragments */
	ACCEPT = 1 << 2,    /* otherwise drop */
	TRACKED = 1 << 3,   /* TCP: segments are checked against the window */
	LIBERAL = 1 << 4,   /* TCP: segments pass whatever their numbers */
};

/* The frames that are in user space: of one direction of a flow, or those without
 * ports between two addresses. Flows whose keys have the same hash share an
 * order. Of flows without an entry, only the latest uses it, and only if no entry
 * does. */
struct order {
	__u32 up, done; /* number of frames passed up, and of frames that left user space */
	__u32 entries; /* number of entries that use it */
	__u32 flow; /* hash of the flow that it counts, while no entry uses it */
	__u64 last_up, last_done;
	__u64 forced; /* until then no frame counts as in user space */
};

/* The state of one direction of a flow, by ingress side. The program writes the first cache
 * line for each frame. */
struct way {
	__u64 frames, frame_bytes;
	__u64 datagrams, datagram_bytes; /* whole packets and first fragments, as rules count them */
	__u64 seen; /* time of the last frame */
	/* TCP numbers of the end that sends in this direction, see filter/flow. Then those of
	 * its last segment. */
	__u32 end, max_end, max_win, max_ack;
	__u32 last_seq;

	__u32 last_ack __attribute__((aligned(CACHE_LINE)));
	__u32 last_end, last_window, retransmits;
	__u64 sampled; /* when a dropped frame was last passed up */
	__u64 held; /* until then user space may have frames that were not counted */
};

struct slot {
	/* Only user space writes these. */
	__u32 generation[SIDES]; /* of the policy that gave the verdict */
	__u32 flags[SIDES]; /* way_flag of each way; 0: its frames are passed up */
	__u32 scale[SIDES]; /* TCP: window scale of each end */
	__u32 sack[SIDES]; /* TCP: whether each end accepts selective acknowledgements */
	__u32 order[SIDES]; /* index of the order of whole packets */
	__u32 pair[SIDES]; /* index of the order of frames without ports between the addresses */
	__u32 epoch; /* changes whenever another flow gets the slot */

	__u32 last_from; /* TCP: the side that sent the last segment */
	__u64 idle; /* a flow idle for longer may have expired, so its frames are passed up; 0: no limit */
	struct way ways[SIDES] __attribute__((aligned(CACHE_LINE)));
};

/* A datagram whose fragments are being forwarded or passed up. The word changes only by
 * compare-and-swap. From the lowest bit it has: 17 bits, the bytes that arrived in order; 1
 * bit COLLIDED; 2 unused bits; 4 bits of state; and a number that distinguishes the uses of
 * the slot. */
struct fragment_slot {
	__u64 word;
	struct flow_key key; /* datagram_key() */
	__u64 arrived; /* time of the first fragment */
	__u64 last_up; /* time of the last fragment that was passed up because of this slot */
	__u32 size; /* bytes of payload in each fragment except the last */
	__u32 flow; /* slot of the flow */
	__u32 epoch; /* of that slot */
	__u32 unused;
};

enum fragment_word {
	NEXT_MASK = (1 << 17) - 1,
	COLLIDED = 1 << 17, /* another datagram needed the slot */
	STATE_SHIFT = 20,
	STATE_MASK = 15,
	USE_SHIFT = 24,
};

enum fragment_state {
	EMPTY,
	BUSY, /* being written */
	PASSING, /* its fragments are forwarded, in order */
	RISING, /* its fragments are passed up, in order */
	SLOW, /* its fragments are passed up; the bytes in the word were forwarded before */
	BLOCKED, /* all fragments are passed up: user space may have fragments of another datagram */
};

/* Counts of one CPU. The counts of frames that were passed up are as many elements of an
 * array, by side and reason. */
enum { COUNTS = 64, COUNTS_SIDE = COUNTS / SIDES };

struct totals {
	__u64 fragments[SIDES], fragment_bytes[SIDES]; /* dropped in the mode that drops all fragments */
	__u64 unused[4];
};

/* Written by all CPUs. */
struct shared {
	__u64 sampled[SIDES]; /* when a dropped fragment was last passed up */
	__u64 hidden[SIDES]; /* when a frame was passed up that may hold any fragment */
	/* Never written: it makes bpf2go define the constants in Go. */
	struct {
		enum reason reason;
		enum config_flag config_flag;
		enum way_flag way_flag;
		enum fragment_word fragment_word;
		enum fragment_state fragment_state;
		__u32 unused;
	} constants;
};
