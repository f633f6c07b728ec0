// Package gate lets any goroutine close a lane while one goroutine uses it. It frees the lane's
// resources once, after the last use.
//
// Its states, each of which is entered at most once:
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
// It imports only [fragwall/tun] of this module.
package gate
