package main

import (
	"fmt"
	"regexp"
	"strconv"

	"fragwall/packet/verdict"
)

// pingAverage finds the mean in the last line of ping(8), in milliseconds.
var pingAverage = regexp.MustCompile(`= [\d.]+/([\d.]+)/`)

// floodPing sends pings from the outside host to the inside one, each as soon as the last
// one was answered. The value is the mean round trip.
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
