package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	maxRequest     = 64               // bytes
	maxClients     = 16               // at the same time
	requestTimeout = 5 * time.Second  // for a request
	answerTimeout  = 10 * time.Second // for the client to take the answer
)

// Requests that an instance may answer.
const (
	RequestReload = "reload" // with an [Outcome]
	RequestFile   = "file"   // with an [Outcome]: the configuration file's absolute name
	RequestStatus = "status" // with a report, as /api/status has it
)

// Handlers return the answer to a request, a line that a client sends. The answer
// is encoded as JSON. A client that only connects changes nothing.
type Handlers map[string]func() any

// Outcome is what became of a request.
type Outcome struct {
	Code int    // exit code for the client
	Text string // lines for people
}

// Listener is the control socket of an instance.
type Listener struct {
	net.Listener
	path string
}

// Serve answers requests until ctx is done, several clients at the same
// time: one that is silent, or whose reload takes long, does not keep others
// waiting. Then it removes the socket.
func (l *Listener) Serve(ctx context.Context, handlers Handlers) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer os.Remove(l.path)
	var clients sync.WaitGroup
	defer clients.Wait()
	places := make(chan struct{}, maxClients)
	for {
		places <- struct{}{}
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
			answer(ctx, c, handlers)
		})
	}
}

// answer reads a request, for which it waits no longer than ctx lasts, and
// answers it.
func answer(ctx context.Context, c net.Conn, handlers Handlers) {
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(requestTimeout))
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(c, maxRequest)).ReadString('\n')
	handler := handlers[strings.TrimSuffix(line, "\n")]
	if err != nil || handler == nil {
		return
	}
	result := handler()
	_ = c.SetWriteDeadline(time.Now().Add(answerTimeout))
	_ = json.NewEncoder(c).Encode(result)
}
