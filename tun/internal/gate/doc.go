// Package gate has a lane closed from any goroutine while one goroutine uses it.
// It frees what the lane holds once, after the last use.
//
// Its states, of which each is entered once at most:
//
//	         Enter                Leave
//	idle ──────────────► used ────────────────► freed
//	 │                    │                      ▲ ▲
//	 │                    │ Close: eventfd       │ │
//	 │                    ▼                      │ │
//	 │                 closing ──────────────────┘ │
//	 │                           Leave             │
//	 └─────────────────────────────────────────────┘
//	         Close
//
// It imports nothing of fragwall's but [fragwall/tun].
package gate
