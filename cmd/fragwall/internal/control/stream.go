package control

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"fragwall/cmd/fragwall/internal/exit"
)

// A stream is a sequence of records. Each record is preceded by its length as 4 bytes in
// big-endian order. A length of 0 ends the stream. An [Outcome] follows, as JSON on one line.

const (
	// maxStreams leaves places for clients with other requests.
	maxStreams   = maxClients / 2
	streamBuffer = 64 << 10               // bytes that are written at once
	endTimeout   = 100 * time.Millisecond // for the client to read the remaining bytes, once the stream has ended
	// MaxRecord is the length of the longest record in bytes.
	MaxRecord = 1 << 20
)

// streamTimeout is how long a client may take to read streamBuffer bytes.
var streamTimeout = time.Minute // a variable for tests

// Streams answer requests with any number of records. A handler returns as soon as ctx is done,
// which happens when the client closes its end or the instance stops, or as soon as
// [Stream.Send] fails. The argument is JSON; nil if the client sent none. The error that the
// handler returns is sent to the client, which exits with [exit.Usage] for an
// [exit.UsageError], and with [exit.Failed] for any other.
type Streams map[string]func(ctx context.Context, argument json.RawMessage, to *Stream) error

// Stream is where a handler writes records. Only one goroutine at a time may use it.
type Stream struct {
	ctx context.Context
	c   net.Conn
	w   *bufio.Writer
}

// Send writes a record, which must not be empty or longer than [MaxRecord]. Records are
// buffered up to 64 KiB, see [Stream.Flush]. Send blocks while the client does not read, for at
// most a minute, and fails once the client is gone.
func (s *Stream) Send(record []byte) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if len(record) == 0 || len(record) > MaxRecord {
		return fmt.Errorf("a record of %d bytes; want 1 to %d", len(record), MaxRecord)
	}
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(record)))
	_, err := s.w.Write(length[:])
	if err == nil {
		_, err = s.w.Write(record)
	}
	return err
}

// SendJSON writes a value as a record.
func (s *Stream) SendJSON(value any) error {
	record, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return s.Send(record)
}

// Flush writes the buffered records.
func (s *Stream) Flush() error { return s.w.Flush() }

// Client returns the user and the process of the client (SO_PEERCRED, unix(7)).
func (s *Stream) Client() (uid, pid int) {
	if peer, err := credentials(s.c.(*net.UnixConn)); err == nil {
		return int(peer.Uid), int(peer.Pid)
	}
	return -1, -1
}

// timely writes to a client within a time limit.
type timely struct {
	ctx context.Context
	c   net.Conn
}

func (t timely) Write(b []byte) (int, error) {
	_ = t.c.SetWriteDeadline(time.Now().Add(streamTimeout))
	if t.ctx.Err() != nil { // checked after setting the deadline, which the end of ctx shortens
		_ = t.c.SetWriteDeadline(time.Now().Add(endTimeout))
	}
	return t.c.Write(b)
}

// stream answers a request with a handler, until the client closes its end or ctx is done.
func stream(ctx context.Context, c net.Conn, argument json.RawMessage, handle func(context.Context, json.RawMessage, *Stream) error) {
	watched, gone := context.WithCancel(ctx)
	stop := context.AfterFunc(watched, func() { _ = c.SetWriteDeadline(time.Now().Add(endTimeout)) })
	defer stop()
	var watching sync.WaitGroup
	watching.Go(func() {
		_, _ = io.Copy(io.Discard, c) // the client sends nothing more before it closes its end
		gone()
	})
	s := newStream(watched, c)
	err := handle(watched, argument, s)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	s.end(err)
	_ = c.Close()
	watching.Wait()
}

func newStream(ctx context.Context, c net.Conn) *Stream {
	return &Stream{ctx, c, bufio.NewWriterSize(timely{ctx, c}, streamBuffer)}
}

// end tells the client the outcome of its request.
func (s *Stream) end(err error) {
	var o Outcome
	if err != nil {
		o = failure(err)
	}
	_, _ = s.w.Write([]byte{0, 0, 0, 0})
	_ = json.NewEncoder(s.w).Encode(o)
	_ = s.w.Flush()
}

// Follow requests a stream from an instance, and calls each with every record, which is valid
// until each returns. It ends with the stream, with the first error of each, or once ctx is
// done. The argument is sent as JSON; nil means none. If another process takes over from the
// instance, Follow asks that one, or, if there were records before, fails with [ErrReplaced].
func (i Instance) Follow(ctx context.Context, request string, argument any, each func(record []byte) error) error {
	begun := false
	return again(func() (bool, error) {
		err := i.followOnce(ctx, request, argument, func(record []byte) error {
			begun = true
			return each(record)
		})
		return !begun && errors.Is(err, ErrReplaced), err
	})
}

func (i Instance) followOnce(ctx context.Context, request string, argument any, each func(record []byte) error) error {
	path, err := i.choose()
	if err != nil {
		return err
	}
	if argument != nil {
		text, err := json.Marshal(argument)
		if err != nil {
			return err
		}
		request += " " + string(text)
	}
	if len(request) >= maxRequest {
		return exit.Usagef("the request is too long: %d bytes; want at most %d", len(request), maxRequest-1)
	}
	c, err := connect(path, fileTimeout)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	if _, err = fmt.Fprintln(c, request); err == nil {
		err = follow(bufio.NewReaderSize(c, streamBuffer), each)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errBroken):
		return fmt.Errorf("socket %q: %w", path, err)
	}
	return err
}

// errBroken is the error for a stream without an end.
var errBroken = errors.New("the answer is incomplete: the instance ended, is older than this command, or closed the connection because the answer was not read for a minute")

// follow reads a stream to its end. The error is what the instance reports there.
func follow(r *bufio.Reader, each func(record []byte) error) error {
	var record []byte
	for {
		var length [4]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return errBroken
		}
		n := int(binary.BigEndian.Uint32(length[:]))
		if n == 0 {
			break
		}
		if n > MaxRecord {
			return fmt.Errorf("%w: a record of %d bytes", errBroken, n)
		}
		if cap(record) < n {
			record = make([]byte, n)
		}
		record = record[:n]
		if _, err := io.ReadFull(r, record); err != nil {
			return errBroken
		}
		if err := each(record); err != nil {
			return err
		}
	}
	var o Outcome
	if err := json.NewDecoder(io.LimitReader(r, MaxRecord)).Decode(&o); err != nil {
		return errBroken
	}
	switch o.Code {
	case 0:
		return nil
	case exit.Usage:
		return &exit.UsageError{Err: errors.New(o.Text)}
	}
	if o.Replaced {
		return ErrReplaced
	}
	return errors.New(o.Text)
}
