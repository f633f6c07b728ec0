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

// Limits on clients.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 30 * time.Second
	idleTimeout  = 2 * time.Minute
	maxHeader    = 16 << 10 // bytes
	maxScrapes   = 4        // at the same time
	// maxConnections is the maximum number of open connections, with or without a token. Their
	// resources are not available to the wire.
	maxConnections = 128
	// healthTimeout is the time limit for the datapath to respond. Its locks are normally held
	// for microseconds.
	healthTimeout = time.Second
	// shutdownTimeout is the time limit for answers in progress at the end. An answer normally
	// takes milliseconds. A slow or silent client must not delay the last log messages of the
	// process.
	shutdownTimeout = 200 * time.Millisecond
	// leaveTimeout is the time limit for a process from which another one took over: no process
	// waits for its end.
	leaveTimeout = 2 * time.Second
)

// Server is the status server.
type Server struct {
	source  *report.Source
	history history.History
	token   string // "" if clients need none
	lister  *listing.Lister
	listing chan struct{} // holds a value while a list is made
	http    http.Server
	leaving atomic.Bool // another process is taking over, or has taken over

	unanswered unanswered
}

// NewServer returns a server for a source and a lister. If token is not "", clients need it for
// everything about the box. If it is "", lists are not available.
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

// Past returns the points of the last hour, oldest first.
func (s *Server) Past() []history.Point { return s.history.Since(time.Time{}) }

// Restore replaces the history by that of another process.
func (s *Server) Restore(past []history.Point) { s.history.Restore(past) }

// SetLeaving says whether another process is taking over, or has done so. Meanwhile, the server
// closes each connection after its answer, so that the client connects to that process.
// Requests that arrive before the end of [Server.Serve] are still answered.
func (s *Server) SetLeaving(leaving bool) { s.leaving.Store(leaving) }

// Serve answers clients that connect to l, and records the history, until ctx is done.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var keeping sync.WaitGroup
	defer keeping.Wait() // the box may be closed afterwards
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

// handler returns the handler of all paths.
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

// protected protects against web pages of other origins: they cannot embed an answer, interpret
// it as another type, or reach the server by a name of their own that resolves to this machine
// (DNS rebinding).
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

// literal reports whether a Host header is an address or localhost.
func literal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}

// guarded requires the token, if there is one.
func (s *Server) guarded(next http.Handler) http.Handler {
	if s.token == "" {
		return next
	}
	want := sha256.Sum256([]byte(s.token)) // hides the length of the token from timing
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

// health reports whether the datapath responds.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	if err := s.source.Alive(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// readiness reports whether frames flow and both sides have a link.
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

// past answers with the history of the last hour, or since a time.
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
	Started    time.Time       `json:"started"` // start of the instance, as in /api/status
	Resolution float64         `json:"resolution_seconds"`
	Points     []history.Point `json:"points"` // oldest first
}

// answer writes a value as JSON.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
