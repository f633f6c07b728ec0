/* What the programs share with the lanes, which map it. The Go types are made of these
 * (bpf2go -type). */

#define CACHE_LINE 64
#define RECORD_FRAME 1576 /* bytes; a record is of an odd number of cache lines, so that not all begin in the same cache sets */

/* queue.in has two numbers, each of 32 bits and without an end, in one word: so each frame
 * that goes the one way has its place among those that go the other. */
enum queue_in {
	QUEUED_SHIFT = 32, /* of the number of frames in the high half */
};

enum record_length {
	/* The lane fell asleep: the frame goes into the queue. No frame is as short. */
	SKIPPED = 1,
};

enum shed_constants {
	/* How many frames a queue holds while nobody reads, with its ring and with those
	 * that the lane has read and not reported so far. */
	QUEUE_LENGTH = 5120,
	/* How many there may be until no further datagram is let in of a source without
	 * credit, but for one in so many newcomers. */
	SHED_MARK = QUEUE_LENGTH - 2048,
	NEWCOMER_BITS = 4,
	/* Above this, whole packets and datagrams with credit are refused as well: up to
	 * QUEUE_LENGTH there is room for the rest of the datagrams that were let in. */
	OPEN_MARK = QUEUE_LENGTH - 512,
	/* Up to this, there is nothing to do but to count, unless a datagram was refused
	 * lately. What is let in is not remembered. */
	QUIET_MARK = QUEUE_LENGTH / 5,
	/* Binary logarithm of how many places for decisions there are. Of the datagrams whose
	 * hashes share a place, the last two are remembered that were let in and the last two
	 * that were refused. With one of each, two of 50 datagrams that come at the same time
	 * would share a place once in 50 times, and one of both would be cut; with two, it
	 * takes three of them, once in 200,000 times. */
	DECISION_BITS = 16,
	/* Binary logarithm of how many credits there are. Sources whose hashes share a place
	 * share one. */
	CREDIT_BITS = 16,
	/* Binary logarithm of the unit of time in ns, about 1 ms. */
	TIME_SHIFT = 20,
	/* Binary logarithm of after how much time other datagrams are the newcomers. */
	NEWCOMER_SHIFT = 8,
};

/* Of a queue of the TAP and its ring. */
struct queue {
	/* Written by the programs: */
	__u64 in; /* number of frames that went into the queue, and of records of the ring that were taken */
	__u64 shed; /* fragments that were refused in front of the queue */
	__u64 collect_shed; /* and in front of the ring */
	__u64 last_refusal; /* when a datagram was refused for the last time; 0 where none that was still counts */

	/* Written by the lane: */
	__u32 taken __attribute__((aligned(CACHE_LINE))); /* number of frames that it took out of the queue */
	__u32 freed; /* and of records that it freed */
	__u32 awake; /* it looks at the ring before it sleeps */
	__u32 unused;
	__u64 collected; /* frames that it took out of the ring */
	/* Never written: it is here so that the constants get names in Go. */
	struct {
		enum queue_in queue_in;
		enum record_length record_length;
		enum shed_constants shed_constants;
	} constants;
} __attribute__((aligned(CACHE_LINE)));

/* A fragment in a ring. The lane puts the length back to 0. */
struct record {
	__u32 length; /* of the frame in bytes; 0 where the record is not written yet, or SKIPPED */
	__u32 queued; /* number of frames that had gone into the queue before it */
	__u8 unused[6];
	__u8 header[10]; /* virtio-net header, of zeros */
	__u8 frame[RECORD_FRAME];
};

/* Decisions on datagrams whose hashes share a place: of each kind the last one and the one
 * before it. A decision is the high half of the datagram's hash and, in the low half, the
 * time. */
struct decisions {
	__u64 admitted[2];
	__u64 refused[2];
};
