package main

import (
	"fmt"
	"regexp"
	"strconv"

	"fragwall/packet/verdict"
)

// pingAverage matches the mean round-trip time in the last line of ping(8), in milliseconds.
var pingAverage = regexp.MustCompile(`= [\d.]+/([\d.]+)/`)

// floodPing runs `ping -f` from the outside host to the inside host, which sends each request when
// the one before is answered. The value is the mean round-trip time in microseconds.
func floodPing(p *spot, seconds float64, o *observer) (f figure, err error) {
	in, out := p.network.Hosts[verdict.Inside], p.network.Hosts[verdict.Outside]
	o.begin()
	pinging, err := launch(out, senderCPU, "", "ping", "-n", "-q", "-f", "-w", strconv.Itoa(max(1, int(seconds))), in.IPv4.String())
	var text string
	if err == nil {
		text, err = pinging.wait()
	}
	o.end()
	if err != nil {
		return f, err
	}
	m := pingAverage.FindStringSubmatch(text)
	if m == nil {
		return f, fmt.Errorf("ping: no average in %q", text)
	}
	milliseconds, err := strconv.ParseFloat(m[1], 64)
	f.value = milliseconds * 1e3
	return f, err
}
