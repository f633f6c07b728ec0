/* What the programs share with user space. All of it but the map of flows is memory
 * that user space maps: it reads counters, and stops an entry, without a system call.
 * The Go types are made of these (bpf2go -type). Times are of CLOCK_MONOTONIC, in
 * nanoseconds. */

#define CACHE_LINE 64

enum side { INSIDE, OUTSIDE, SIDES };

/* Why a frame goes up to user space: fastpath.Reason. */
enum reason {
	SUSPENDED, NOT_IP, HEADER, PROTOCOL, SIZE, UNKNOWN_FLOW, POLICY, ORDER, FLAGS, WINDOW,
	CHECKSUM, FRAGMENT, SAMPLE, SEGMENTS,
	NONE, /* it does not */
};

enum config_flag {
	RUNNING = 1 << 0,
	STATEFUL = 1 << 1,       /* the policy tracks flows */
	ANY_VLANS = 1 << 2,      /* a flow is the same in any VLAN */
	DROP_FRAGMENTS = 1 << 3, /* no fragment passes */
	VALIDATE = 1 << 4,       /* fragments of accepted flows pass in order */
	SAMPLE_DROPS = 1 << 5,   /* one frame a second that is dropped goes up */
	INSIDE_UP = 1 << 6,      /* frames may leave by the inside */
	OUTSIDE_UP = 1 << 7,
};

struct config {
	__u64 secret[2]; /* key of hash() */
	__u64 timeout[2]; /* of a datagram, IPv4 and IPv6 */
	__u32 generation; /* of the policy in force */
	__u32 flags;
	__u32 fragment_mask; /* number of fragment slots, less one */
	__u32 max_fragments; /* of a datagram */
	__u32 mtu[SIDES]; /* of the side that a frame leaves by */
	__u32 egress[SIDES]; /* index of the interface that frames leave by; 0: none */
	__u32 redirect[SIDES]; /* flags of bpf_redirect: BPF_F_INGRESS for a pod's own TAP */
	__u64 uncounted; /* until then frames that were not counted may be in the queue of a TAP */
};

/* A flow, the same for both directions: flow.Key. Numbers are the host's. */
struct flow_key {
	__u64 inside[2], outside[2]; /* addresses; IPv4 as ::ffff:a.b.c.d */
	__u64 ports; /* 16 bits of the inside's port, 16 of the outside's, 8 of protocol, 8 of version */
	__u64 vlans;
};

/* What was decided of a way, in slot.flags. */
enum way_flag {
	WHOLE = 1 << 0,     /* of whole packets */
	FRAGMENTS = 1 << 1, /* of fragmented datagrams */
	ACCEPT = 1 << 2,    /* else they are dropped */
	TRACKED = 1 << 3,   /* TCP: segments are held against the window */
	LIBERAL = 1 << 4,   /* TCP: but pass whatever their numbers */
};

/* What is on its way through user space: of the whole packets of a flow's direction, or
 * of the fragments between two addresses. Others may share it, whose keys have the same
 * hash; but of flows without an entry only the one that came last has it, and none where
 * an entry has it. */
struct order {
	__u32 up, done; /* how many went up, and how many left user space */
	__u32 entries; /* how many entries have it */
	__u32 flow; /* hash of the flow that it counts, while no entry has it */
	__u64 last_up, last_done;
	__u64 forced; /* until then nothing counts as on its way */
};

/* What is known of one direction of a flow, by the side that its frames come in by.
 * The first line is what the program writes of each frame. */
struct way {
	__u64 frames, frame_bytes;
	__u64 datagrams, datagram_bytes; /* whole packets and first fragments: what rules count */
	__u64 seen; /* the last frame */
	/* TCP numbers of the end that sends this way, see filter/flow. Those of the last
	 * segment follow. */
	__u32 end, max_end, max_win, max_ack;
	__u32 last_seq;

	__u32 last_ack __attribute__((aligned(CACHE_LINE)));
	__u32 last_end, last_window, retransmits;
	__u64 sampled; /* when a dropped frame went up last */
	__u64 held; /* until then frames may be on their way that did not count */
};

struct slot {
	/* Written by user space alone. */
	__u32 generation[SIDES]; /* of the policy that decided */
	__u32 flags[SIDES]; /* of a way; 0: its frames go up */
	__u32 scale[SIDES]; /* TCP: of the windows of each end */
	__u32 sack[SIDES]; /* TCP: whether each end takes selective acknowledgements */
	__u32 order[SIDES]; /* index of the order of whole packets */
	__u32 pair[SIDES]; /* index of the order of fragments between the addresses */
	__u32 epoch; /* changes with each flow that gets the slot */

	__u32 last_from; /* TCP: who sent the last segment */
	__u64 idle; /* without a frame for longer than this, user space has to say whether the flow is; 0: never */
	struct way ways[SIDES] __attribute__((aligned(CACHE_LINE)));
};

/* A datagram of which fragments are on their way. The word changes by compare and
 * swap alone: from the lowest bit, 17 bits of how many bytes came in order, 1 bit for
 * COLLIDED, 2 bits unused, 4 bits of state, and a number that makes each use of the
 * slot another one. */
struct fragment_slot {
	__u64 word;
	struct flow_key key; /* datagram_key() */
	__u64 arrived; /* the first fragment that came */
	__u64 last_up; /* the last fragment that went up because of this slot */
	__u32 size; /* of each fragment's payload but the last one's, in bytes */
	__u32 flow; /* slot of the flow */
	__u32 epoch; /* of that slot */
	__u32 unused;
};

enum fragment_word {
	NEXT_MASK = (1 << 17) - 1,
	COLLIDED = 1 << 17, /* another datagram wanted the slot */
	STATE_SHIFT = 20,
	STATE_MASK = 15,
	USE_SHIFT = 24,
};

enum fragment_state {
	EMPTY,
	BUSY, /* being written */
	PASSING, /* its fragments are forwarded, in order */
	RISING, /* its fragments go up, in order */
	SLOW, /* its fragments go up; the bytes in the word were forwarded before */
	BLOCKED, /* all fragments go up: user space may have some of another datagram */
};

/* Counts of a CPU. Those of the frames that went up are at as many numbers of an array,
 * by side and reason. */
enum { COUNTS = 64, COUNTS_SIDE = COUNTS / SIDES };

struct totals {
	__u64 fragments[SIDES], fragment_bytes[SIDES]; /* dropped in the mode that drops all */
	__u64 unused[4];
};

/* What all CPUs write. */
struct shared {
	__u64 sampled[SIDES]; /* when a fragment that is dropped went up last */
	__u64 hidden[SIDES]; /* when a frame went up that may hold any fragment */
	/* Never written: it is here so that the constants get names in Go. */
	struct {
		enum reason reason;
		enum config_flag config_flag;
		enum way_flag way_flag;
		enum fragment_word fragment_word;
		enum fragment_state fragment_state;
		__u32 unused;
	} constants;
};
