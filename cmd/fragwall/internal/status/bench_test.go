package status

import (
	"context"
	"sync"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// BenchmarkForwarding forwards whole packets, without scrapes and with one scrape per second.
func BenchmarkForwarding(b *testing.B) {
	for _, scraped := range []bool{false, true, false, true} {
		b.Run(map[bool]string{false: "undisturbed", true: "scraped"}[scraped], func(b *testing.B) {
			source, s := newSource(b)
			ctx, cancel := context.WithCancel(b.Context())
			var scraping sync.WaitGroup
			if h := NewServer(source, nil, "").handler(); scraped {
				scraping.Go(func() {
					for ticker := time.NewTicker(time.Second); ; {
						get(h, "/metrics")
						select {
						case <-ticker.C:
						case <-ctx.Done():
							return
						}
					}
				})
			}
			frame := tun.Frame{Data: packettest.UDP(client, server, packettest.Body(64)).Frame()}
			for b.Loop() {
				s.Forward(verdict.Inside, frame, time.Unix(1, 0))
			}
			cancel()
			scraping.Wait()
		})
	}
}

func BenchmarkScrape(b *testing.B) {
	source, _ := newSource(b)
	h := NewServer(source, nil, "").handler()
	b.ReportAllocs()
	for b.Loop() {
		get(h, "/metrics")
	}
}
