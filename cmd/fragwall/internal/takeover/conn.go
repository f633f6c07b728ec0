package takeover

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds of messages; see the package documentation.
const (
	kindOffer   = "offer"
	kindCopy    = "copy"
	kindHold    = "hold"
	kindHeld    = "held"
	kindTake    = "take"
	kindGo      = "go"
	kindRunning = "running"
	kindKept    = "kept"
)

// message is a message of the protocol.
type message struct {
	Kind  string          `json:"kind"`
	Error string          `json:"error,omitempty"` // reason; only for kindKept
	Files int             `json:"files,omitempty"` // number of descriptors sent before the message
	Body  json.RawMessage `json:"body,omitempty"`
}

// Types of transmissions. The type is followed by the length, 4 bytes in big-endian order.
const (
	typeMessage = 'm'
	typeChunk   = 'c' // part of a state
	typeEnd     = 'e' // end of a state
	typeFiles   = 'f' // descriptors are attached

	headerSize = 5
)

const (
	maxMessage = 16 << 20 // bytes
	chunkSize  = 64 << 10 // bytes of a state that are sent at once
	// maxFiles is the number of descriptors that are sent at once (SCM_MAX_FD is 253).
	maxFiles = 200
	// maxAllFiles is the number of descriptors that a process accepts. A port has at most 256
	// queues.
	maxAllFiles = 1024
)

var errTooManyFiles = fmt.Errorf("more than %d descriptors received", maxAllFiles)

// conn sends and receives transmissions. It is no longer usable after an error.
type conn struct {
	ctx   context.Context // ends operations when it is done
	c     *net.UnixConn
	r     *bufio.Reader
	files []int         // received descriptors that were not taken
	limit time.Duration // for each transmission
	until time.Time     // for all transmissions together
}

func newConn(ctx context.Context, c *net.UnixConn) *conn {
	return &conn{ctx: ctx, c: c, r: bufio.NewReader(c)}
}

// takeFiles makes the connection keep received descriptors. Call it before anything is
// received.
func (n *conn) takeFiles() { n.r = bufio.NewReaderSize((*receiver)(n), chunkSize+headerSize) }

// receiver reads bytes, and keeps the descriptors that are attached to them.
type receiver conn

func (r *receiver) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := r.c.ReadMsgUnix(b, oob)
	if oobn > 0 {
		list, parseErr := unix.ParseSocketControlMessage(oob[:oobn])
		err = errors.Join(err, parseErr)
		for i := range list {
			if fds, err := unix.ParseUnixRights(&list[i]); err == nil {
				r.files = append(r.files, fds...)
			}
		}
	}
	if len(r.files) > maxAllFiles {
		err = errors.Join(err, errTooManyFiles)
	}
	if n <= 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

// wait sets the time limits for each of the next operations, and for all of them together.
func (n *conn) wait(each, all time.Duration) { n.limit, n.until = each, time.Now().Add(all) }

// waitForever removes the time limits of the next operations.
func (n *conn) waitForever() { n.limit, n.until = 0, time.Time{} }

// arm sets the deadline of an operation.
func (n *conn) arm() {
	deadline := n.until
	if each := time.Now().Add(n.limit); each.Before(deadline) {
		deadline = each
	}
	_ = n.c.SetDeadline(deadline)
	if n.ctx.Err() != nil { // checked after setting the deadline, which the end of ctx shortens
		n.end()
	}
}

// end ends the current operation.
func (n *conn) end() { _ = n.c.SetDeadline(time.Unix(1, 0)) }

// quit sends the reason for which this process aborts, unless the other process has aborted. It
// has its own time limit, even if ctx is done.
func (n *conn) quit(err error) {
	if reason := new(said); errors.As(err, &reason) {
		return
	}
	n.ctx = context.Background()
	n.wait(limits.Step, limits.Step)
	_ = n.send(message{Kind: kindKept, Error: err.Error()}, nil, nil)
}

// put sends one transmission, with descriptors if there are any.
func (n *conn) put(kind byte, body []byte, files []int) error {
	n.arm()
	b := make([]byte, headerSize, headerSize+len(body))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)))
	b = append(b, body...)
	sent := 0
	var err error
	if len(files) > 0 {
		sent, _, err = n.c.WriteMsgUnix(b, unix.UnixRights(files...), nil)
	}
	if err == nil {
		_, err = n.c.Write(b[sent:])
	}
	return err
}

// send sends a message. body may be nil. Descriptors are sent before the message.
func (n *conn) send(m message, body any, files []int) error {
	if body != nil {
		var err error
		if m.Body, err = json.Marshal(body); err != nil {
			return err
		}
	}
	m.Files = len(files)
	for len(files) > 0 {
		some := files[:min(len(files), maxFiles)]
		if err := n.put(typeFiles, nil, some); err != nil {
			return err
		}
		files = files[len(some):]
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return n.put(typeMessage, text, nil)
}

// next returns the type and the length of the next transmission.
func (n *conn) next() (kind byte, length int, err error) {
	n.arm()
	var header [headerSize]byte
	if _, err := io.ReadFull(n.r, header[:]); err != nil {
		return 0, 0, err
	}
	return header[0], int(binary.BigEndian.Uint32(header[1:])), nil
}

// receive returns the next message, which must be of one of the given kinds. It returns a
// [said] error if the other process aborts.
func (n *conn) receive(kinds ...string) (m message, err error) {
	kind, length, err := n.next()
	for err == nil && kind == typeFiles {
		kind, length, err = n.next()
	}
	switch {
	case err != nil:
		return m, err
	case kind != typeMessage:
		return m, fmt.Errorf("want a message, got %q", kind)
	}
	return n.message(length, kinds)
}

// parting returns the reason why the other process aborts, which is err or is received after it. It
// returns nil if there is none.
func (n *conn) parting(err error) error {
	n.wait(limits.Death, limits.Death)
	for {
		if errors.As(err, new(*said)) {
			return err
		}
		if _, err = n.receive(kindGo); err != nil && !errors.As(err, new(*said)) {
			return nil
		}
	}
}

// message reads a message with a length.
func (n *conn) message(length int, kinds []string) (m message, err error) {
	if length > maxMessage {
		return m, fmt.Errorf("received a message of %d bytes, want at most %d", length, maxMessage)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(n.r, text); err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, err
	}
	if m.Kind == kindKept {
		return m, &said{m.Error}
	}
	for _, k := range kinds {
		if m.Kind == k {
			return m, nil
		}
	}
	return m, fmt.Errorf("received message %q, want %q", m.Kind, kinds)
}

// said is the reason for which the other process aborted.
type said struct{ reason string }

func (s *said) Error() string { return s.reason }

// take returns the descriptors that belong to a message.
func (n *conn) take(m *message) ([]int, error) {
	if m.Files < 0 || m.Files > len(n.files) {
		return nil, fmt.Errorf("descriptors: received %d, want %d", len(n.files), m.Files)
	}
	files := n.files[:m.Files:m.Files]
	n.files = n.files[m.Files:]
	return files, nil
}

// close closes the connection and the descriptors that were not taken.
func (n *conn) close() {
	_ = n.c.Close()
	for _, fd := range n.files {
		_ = unix.Close(fd)
	}
	n.files = nil
}

// stateWriter sends a state in chunks.
type stateWriter struct{ *conn }

func (w stateWriter) Write(b []byte) (int, error) {
	if err := w.put(typeChunk, b, nil); err != nil {
		return 0, err
	}
	return len(b), nil
}

// sendState sends what save writes.
func (n *conn) sendState(save func(io.Writer) error) error {
	w := bufio.NewWriterSize(stateWriter{n}, chunkSize)
	err := save(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = n.put(typeEnd, nil, nil)
	}
	return err
}

// stateReader reads the chunks of a state up to its end.
type stateReader struct {
	*conn
	left int // bytes of the current chunk
	err  error
}

func (r *stateReader) Read(b []byte) (int, error) {
	for r.left == 0 && r.err == nil {
		kind, length, err := r.next()
		switch {
		case err != nil:
			r.err = notEOF(err)
		case kind == typeChunk:
			r.left = length
		case kind == typeEnd:
			r.err = io.EOF
		case kind == typeMessage: // the other process aborts, and gives the reason
			if _, r.err = r.message(length, nil); r.err == nil {
				r.err = io.ErrUnexpectedEOF
			}
		default:
			r.err = fmt.Errorf("want a state, got %q", kind)
		}
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(b[:min(len(b), r.left)])
	r.left -= n
	if err != nil {
		r.err = notEOF(err)
	}
	return n, r.err
}

// notEOF turns the end of the connection into an error, so that it does not look like the end
// of a state.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// receiveState calls restore with a state, and skips what restore leaves of it.
func (n *conn) receiveState(restore func(io.Reader) error) error {
	r := &stateReader{conn: n}
	err := restore(r)
	_, rest := io.Copy(io.Discard, r)
	if rest != nil { // more specific than err
		return rest
	}
	return err
}
