/* The data that the programs share with the lanes, which map it into their memory. bpf2go -type
 * generates the Go types from these. */

#define CACHE_LINE 64
/* In bytes. A record has an odd number of cache lines, so that the records begin in different
 * cache sets. */
#define RECORD_FRAME 1576

/* queue.in holds two 32-bit counters, which wrap, in one word: the number of frames that entered
 * the queue, and the number of records of the ring that were reserved. One atomic change of the
 * word orders each frame relative to those on the other path. */
enum queue_in {
	QUEUED_SHIFT = 32, /* of the number of frames, in the high half */
};

enum record_length {
	/* The record holds no frame: the lane fell asleep, and the frame went into the queue. No
	 * frame is as short as this. */
	SKIPPED = 1,
};

enum shed_constants {
	/* The maximum number of frames in a queue while the lane does not read, including those in
	 * its ring and those that the lane has read and not yet reported. */
	QUEUE_LENGTH = 5120,
	/* Above this number of frames, new datagrams of sources without credit are refused, except
	 * for one in 1 << NEWCOMER_BITS, the newcomers. */
	SHED_MARK = QUEUE_LENGTH - 2048,
	NEWCOMER_BITS = 4,
	/* Above this number, whole packets and new datagrams with credit are refused, too. The room
	 * up to QUEUE_LENGTH is for the other fragments of admitted datagrams. */
	OPEN_MARK = QUEUE_LENGTH - 512,
	/* Up to this number, frames are only counted, and admissions are not recorded, unless a
	 * datagram was refused recently. */
	QUIET_MARK = QUEUE_LENGTH / 5,
	/* Binary logarithm of the number of places for decisions. Each place holds the last two
	 * admissions and the last two refusals of the datagrams whose hashes share it. Suppose that
	 * 50 datagrams arrive at the same time. With one decision of each kind per place, two of
	 * them would share a place in 1 of 50 cases, and one of the two would lose fragments. With
	 * two decisions of each kind, this takes three datagrams at a place: 1 of 200,000 cases. */
	DECISION_BITS = 16,
	/* Binary logarithm of the number of credits. Sources whose hashes share a place share a
	 * credit. */
	CREDIT_BITS = 16,
	/* Binary logarithm of the unit of time in ns: about 1 ms. */
	TIME_SHIFT = 20,
	/* Binary logarithm of the time, in this unit, after which other datagrams are newcomers. */
	NEWCOMER_SHIFT = 8,
};

/* The state of a queue of the TAP and its ring. */
struct queue {
	/* Written by the programs. */
	__u64 in; /* frames that entered the queue, and records that were reserved; see queue_in */
	__u64 shed; /* fragments that were refused before the queue */
	__u64 collect_shed; /* fragments that were refused before the ring */
	__u64 last_refusal; /* time of the last refusal of a datagram; 0 if it is no longer valid */

	/* Written by the lane. */
	__u32 taken __attribute__((aligned(CACHE_LINE))); /* frames taken from the queue */
	__u32 freed; /* records that were freed */
	__u32 awake; /* 1 if the lane checks the ring before it sleeps */
	__u32 unused;
	__u64 collected; /* frames taken from the ring */
	/* Never written: this makes bpf2go generate Go names for the constants. */
	struct {
		enum queue_in queue_in;
		enum record_length record_length;
		enum shed_constants shed_constants;
	} constants;
} __attribute__((aligned(CACHE_LINE)));

/* A fragment in a ring. */
struct record {
	__u32 length; /* of the frame in bytes; SKIPPED; or 0 while the record is free or being written */
	__u32 queued; /* number of frames that entered the queue before this fragment */
	__u8 unused[6];
	__u8 header[10]; /* virtio-net header, all zeros */
	__u8 frame[RECORD_FRAME];
};

/* Decisions on the datagrams whose hashes share a place: the last two of each kind. The high half
 * of a decision is the high half of the datagram's hash; the low half is the time. */
struct decisions {
	__u64 admitted[2];
	__u64 refused[2];
};
