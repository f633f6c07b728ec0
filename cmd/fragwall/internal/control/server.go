package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"fragwall/cmd/fragwall/internal/exit"
)

const (
	maxRequest     = 4096             // bytes, including its argument and the end of the line
	maxClients     = 16               // at the same time
	requestTimeout = 5 * time.Second  // for a request
	answerTimeout  = 10 * time.Second // for the client to take the answer
	leaveTimeout   = 2 * time.Second  // for clients of a socket that now belongs to another process
	// A client that sends requests in a loop is limited to this many per second, after the
	// first maxClients: each request costs a connection and a goroutine.
	maxRate = 100
)

// Requests that an instance may answer.
const (
	RequestReload  = "reload"  // with an [Outcome]
	RequestFile    = "file"    // with an [Outcome]: the configuration file's absolute name
	RequestCapture = "capture" // with a stream, see package trace
	RequestStatus  = "status"  // with a report, as /api/status has it
	RequestReplace = "replace" // with an exchange, see package takeover
)

// Handlers return the answer to a request, which is a line that a client sends. The answer is
// encoded as JSON. A client that only connects changes nothing.
type Handlers map[string]func() any

// Exchanges answer requests by a dialogue over the connection, which they close. They return
// soon after ctx is done. A client must wait for the first answer before it sends more.
type Exchanges map[string]func(ctx context.Context, argument json.RawMessage, c *net.UnixConn)

// Service is the set of requests that an instance answers.
type Service struct {
	Handlers  Handlers
	Streams   Streams
	Exchanges Exchanges
}

// Outcome is the result of a request.
type Outcome struct {
	Code int    // exit code for the client
	Text string // lines for people
	// Replaced means that another process took over, and that this one did nothing: the client
	// must ask again.
	Replaced bool `json:",omitempty"`
}

// ErrReplaced is the error of a request to an instance from which another process took over.
var ErrReplaced = errors.New("another process took over from the instance; try again")

// errStopping is the error of a request to an instance that ends.
var errStopping = errors.New("fragwall is stopping")

// failure returns the outcome for an error.
func failure(err error) Outcome {
	o := Outcome{Code: exit.Failed, Text: err.Error(), Replaced: errors.Is(err, ErrReplaced)}
	if usage := (*exit.UsageError)(nil); errors.As(err, &usage) {
		o.Code = exit.Usage
	}
	return o
}

// Replaced returns the outcome of a request to an instance from which another process took over.
func Replaced() Outcome { return failure(ErrReplaced) }

// Listener is the control socket of an instance.
type Listener struct {
	net.Listener
	path string
	pace *rate.Limiter // of requests
	left atomic.Bool   // the socket now belongs to another process
}

// Path returns the path of the socket.
func (l *Listener) Path() string { return l.path }

// Leave makes the socket remain when Serve ends, since it belongs to another process.
func (l *Listener) Leave() { l.left.Store(true) }

// Serve answers requests until ctx is done, several clients concurrently: one that is silent,
// or whose reload takes long, does not delay others. Then it removes the socket.
//
// After [Listener.Leave] the socket stays, and clients that have connected get their answers for
// a short time after ctx is done.
func (l *Listener) Serve(ctx context.Context, service Service) {
	answering, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	stop := context.AfterFunc(ctx, func() {
		_ = l.Close()
		if l.left.Load() {
			time.AfterFunc(leaveTimeout, func() { end(ErrReplaced) })
		} else {
			end(errStopping)
		}
	})
	defer stop()
	defer func() {
		if !l.left.Load() {
			_ = os.Remove(l.path)
		}
	}()
	var clients sync.WaitGroup
	defer clients.Wait()
	s := &server{service, make(chan struct{}, maxStreams)}
	places := make(chan struct{}, maxClients)
	for {
		places <- struct{}{}
		_ = l.pace.Wait(ctx) // once ctx is done, Accept fails
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			<-places
			continue
		}
		clients.Go(func() {
			defer func() { <-places }()
			s.answer(answering, c)
		})
	}
}

// server holds what is needed to answer requests.
type server struct {
	Service
	places chan struct{} // of clients that read streams
}

// answer reads a request, until ctx is done at the latest, and answers it.
func (s *server) answer(ctx context.Context, c net.Conn) {
	defer c.Close()
	line, err := readRequest(ctx, c)
	if err != nil {
		return
	}
	request, argument, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if handle := s.Streams[request]; handle != nil {
		s.stream(ctx, c, []byte(argument), handle)
		return
	}
	if talk := s.Exchanges[request]; talk != nil {
		talk(ctx, []byte(argument), c.(*net.UnixConn))
		return
	}
	handler := s.Handlers[request]
	if handler == nil {
		return
	}
	result := handler()
	_ = c.SetWriteDeadline(time.Now().Add(answerTimeout))
	_ = json.NewEncoder(c).Encode(result)
}

// readRequest reads a line.
func readRequest(ctx context.Context, c net.Conn) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(requestTimeout))
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(c, maxRequest)).ReadString('\n')
	if err == nil && stop() {
		err = c.SetReadDeadline(time.Time{})
	}
	return line, err
}

// stream answers with a stream, if there is a place for one more.
func (s *server) stream(ctx context.Context, c net.Conn, argument json.RawMessage, handle func(context.Context, json.RawMessage, *Stream) error) {
	if len(argument) == 0 {
		argument = nil
	}
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
		stream(ctx, c, argument, handle)
	default:
		newStream(ctx, c).end(fmt.Errorf("limit of %d clients that read flows, incomplete datagrams or a capture reached; end one of them", maxStreams))
	}
}
