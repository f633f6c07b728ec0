package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"fragwall/integration/middle"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// CPUs of the senders and of the receivers.
const (
	senderCPU   = 0
	receiverCPU = 1
)

// lateStart is the maximum number of seconds between the start of a receiver and that of its sender,
// on a busy machine.
const lateStart = 5

// process is a running sender or receiver.
type process struct {
	*exec.Cmd
	output *middle.Output
	ended  chan error
}

// launch starts a program on a host, bound to a CPU. The program is ready when it has printed marker.
func launch(h *lab.Host, cpu int, marker string, program string, arguments ...string) (*process, error) {
	p := &process{exec.Command(program, arguments...), middle.NewOutput(marker), make(chan error, 1)}
	p.Stdout, p.Stderr = p.output, p.output
	// The Go runtime's preemption signals must not interrupt the generator's system calls.
	p.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	return p, middle.Start(h.Namespace, cpu, p.Cmd, p.ended)
}

// wait waits until the process ends, and returns its output.
func (p *process) wait() (string, error) {
	if err := <-p.ended; err != nil {
		return "", fmt.Errorf("%w: %s", err, p.output)
	}
	return p.output.String(), nil
}

// generator starts this program as a sender or receiver.
func generator(h *lab.Host, cpu int, l load) (*process, error) {
	self, arguments, err := middle.Generator(l)
	if err != nil {
		return nil, err
	}
	return launch(h, cpu, readyLine, self, arguments...)
}

// generated waits for a generator's result.
func (p *process) generated() (g generated, err error) {
	text, err := p.wait()
	if err == nil {
		text = strings.TrimPrefix(text, readyLine)
		err = json.Unmarshal([]byte(text), &g)
	}
	return g, err
}

// exchange runs a sender on the inside host and a receiver on the outside host, given by their roles,
// and returns their results.
func (p *spot) exchange(sender, receiver string, ipv6 bool, l load, o *observer) (sent, came generated, err error) {
	out := p.network.Hosts[verdict.Outside]
	seconds := l.Seconds
	l.Role, l.Addr, l.Seconds = receiver, netip.AddrPortFrom(out.Addr(ipv6), datagramPort), seconds+lateStart
	r, err := generator(out, receiverCPU, l)
	if err == nil {
		err = r.output.Await(r.ended)
	}
	if err != nil {
		return sent, came, err
	}
	l.Role, l.Seconds = sender, seconds
	sent, err = p.send(l, o)
	came, receiveErr := r.generated()
	return sent, came, errors.Join(err, receiveErr)
}

// send runs a sender on the inside host, and returns its result.
func (p *spot) send(l load, o *observer) (sent generated, err error) {
	o.begin()
	defer o.end()
	s, err := generator(p.network.Hosts[verdict.Inside], senderCPU, l)
	if err != nil {
		return sent, err
	}
	return s.generated()
}
