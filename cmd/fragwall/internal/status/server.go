package status

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"fragwall/cmd/fragwall/internal/history"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/report"
)

// Limits of what a client may take.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 30 * time.Second
	idleTimeout  = 2 * time.Minute
	maxHeader    = 16 << 10 // bytes
	maxScrapes   = 4        // at once
	// maxConnections are open at once, of whoever has the token or not: what
	// they take is taken from the wire.
	maxConnections = 128
	// healthTimeout is how long the datapath may take to answer: its locks
	// are held for microseconds.
	healthTimeout = time.Second
	// shutdownTimeout is how long answers that were begun may still take. They
	// take milliseconds; who is slow, or connected and asked for nothing, must
	// not keep the program from its last words.
	shutdownTimeout = 200 * time.Millisecond
	// leaveTimeout is the same for a process from which another one took over: nothing
	// waits for its end.
	leaveTimeout = 2 * time.Second
)

// Server answers by HTTP.
type Server struct {
	source  *report.Source
	history history.History
	token   string // "" where clients need none
	lister  *listing.Lister
	listing chan struct{} // holds one while a list is made
	http    http.Server
	leaving atomic.Bool // another process is taking over, or has

	unanswered unanswered
}

// NewServer returns a server for a source, and for what lister lists. Where token is
// not "", clients have to show it to get anything about the box; where it is, they get
// no list.
func NewServer(source *report.Source, lister *listing.Lister, token string) *Server {
	s := &Server{source: source, token: token, lister: lister, listing: make(chan struct{}, 1)}
	s.http = http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         s.unanswered.note,
	}
	return s
}

// Past returns the points of the last hour, the oldest first.
func (s *Server) Past() []history.Point { return s.history.Since(time.Time{}) }

// Restore has the history go on from that of another process.
func (s *Server) Restore(past []history.Point) { s.history.Restore(past) }

// SetLeaving says whether another process is taking over, or has done so. Meanwhile, each answer is
// the last one on its connection: the client opens the next one to that process. What clients
// have requested by the end of [Server.Serve] is still answered.
func (s *Server) SetLeaving(leaving bool) { s.leaving.Store(leaving) }

// Serve answers who connects to l, and keeps the history, until ctx is done.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var keeping sync.WaitGroup
	defer keeping.Wait() // the box may be gone afterwards
	open, end := context.WithCancel(ctx)
	defer end()
	keeping.Go(func() {
		s.history.Run(open, func(now time.Time) history.Sample { return history.Read(s.source, now) })
	})
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	err := s.http.Serve(&bounded{Listener: l, most: maxConnections})
	if stop() {
		return fmt.Errorf("status server: %w", err)
	}
	timeout := shutdownTimeout
	if s.leaving.Load() {
		timeout = leaveTimeout
	}
	begun := time.Now()
	s.unanswered.wait(timeout)
	shutdown, cancel := context.WithTimeout(context.Background(), timeout-time.Since(begun))
	defer cancel()
	if s.http.Shutdown(shutdown) != nil {
		_ = s.http.Close()
	}
	return nil
}

// handler returns what answers each path.
func (s *Server) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s.source})
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})

	paths := http.NewServeMux()
	paths.HandleFunc("GET /{$}", servePage)
	paths.HandleFunc("GET /healthz", s.health)
	paths.HandleFunc("GET /readyz", s.readiness)
	paths.Handle("GET /metrics", s.guarded(metrics))
	paths.Handle("GET /api/status", s.guarded(http.HandlerFunc(s.status)))
	paths.Handle("GET /api/history", s.guarded(http.HandlerFunc(s.past)))
	paths.Handle("GET /api/flows", s.listed(s.listFlows))
	paths.Handle("GET /api/waiting", s.listed(s.listWaiting))
	paths.Handle("GET /api/sources", s.listed(s.listSources))
	return s.protected(paths)
}

// protected keeps web pages of others from what is to be had here: none may
// show it, take it for something else, or reach it by a name of its own that it
// has point to this machine (DNS rebinding).
func (s *Server) protected(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if s.leaving.Load() {
			h.Set("Connection", "close")
		}
		if s.token == "" && !literal(r.Host) {
			http.Error(w, "use an IP address or localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// literal reports whether a Host header is an address, or localhost.
func literal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}

// guarded asks for the token, if there is one.
func (s *Server) guarded(next http.Handler) http.Handler {
	if s.token == "" {
		return next
	}
	want := sha256.Sum256([]byte(s.token)) // so that the length does not show either
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !strings.EqualFold(scheme, "bearer") {
			w.Header().Set("WWW-Authenticate", `Bearer realm="fragwall"`)
			http.Error(w, "token required: Authorization: Bearer TOKEN", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// health says whether the datapath still answers.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	if err := s.source.Alive(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// readiness says whether frames flow, and can pass at both sides.
func (s *Server) readiness(w http.ResponseWriter, _ *http.Request) {
	if !s.source.Ready() {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	if sides := s.source.WithoutLink(); len(sides) > 0 {
		http.Error(w, "not ready: no link at "+strings.Join(sides, ", "), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ready")
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, s.source.Report(time.Now()))
}

// past is the history of the last hour, or since a moment of it.
func (s *Server) past(w http.ResponseWriter, r *http.Request) {
	var since time.Time
	if text := r.URL.Query().Get("since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			http.Error(w, "since: want a time in RFC 3339, such as 2026-01-02T15:04:05Z", http.StatusBadRequest)
			return
		}
	}
	answer(w, History{Started: s.source.Started, Resolution: history.Resolution.Seconds(), Points: s.history.Since(since)})
}

// History is the answer of /api/history.
type History struct {
	Started    time.Time       `json:"started"` // of the instance, as in /api/status
	Resolution float64         `json:"resolution_seconds"`
	Points     []history.Point `json:"points"` // the oldest first
}

// answer answers with one JSON object.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
