// Package gate lets any goroutine close or hold a lane while one goroutine uses it. It frees the
// lane's resources once, after the last use.
//
// A lane enters each of these states at most once:
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
// [Gate.Hold] wakes the goroutine that uses the lane, like Close, but leaves the state as it is.
// [Gate.Rest] ends the hold.
//
// The package imports only [fragwall/tun] of this module.
package gate
