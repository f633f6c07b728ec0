package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"

	"fragwall/packet/verdict"
)

// offloads lists the offloads of the hosts' interfaces that combine packets.
var offloads = []string{"tso", "gso", "gro"}

// switchOffloads turns the offloads on or off on both hosts.
func (p *spot) switchOffloads(on bool) error {
	word := map[bool]string{true: "on", false: "off"}[on]
	for _, h := range p.network.Hosts {
		arguments := []string{"-K", h.NIC}
		for _, o := range offloads {
			arguments = append(arguments, o, word)
		}
		err := h.Do(func() error {
			if out, err := exec.Command("ethtool", arguments...).CombinedOutput(); err != nil {
				return fmt.Errorf("ethtool: %w: %s", err, out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stream sends over one TCP connection with iperf3. It returns the bytes received and the duration in
// seconds, both without the first half second. The client is on the inside host. It sends, unless
// flags contain --reverse.
func (p *spot) stream(seconds float64, o *observer, flags ...string) (bytes, took float64, err error) {
	const slowStart = 0.5
	in, out := p.network.Hosts[verdict.Inside], p.network.Hosts[verdict.Outside]
	port := strconv.Itoa(streamPort)
	server, err := launch(out, receiverCPU, "listening", "iperf3", "-s", "-1", "-p", port, "--forceflush")
	if err == nil {
		err = server.output.Await(server.ended)
	}
	if err != nil {
		return 0, 0, err
	}
	o.begin()
	client, err := launch(in, senderCPU, "", "iperf3", append(flags, "-J", "-c", out.IPv4.String(), "-p", port,
		"-O", fmt.Sprint(slowStart), "-t", fmt.Sprint(seconds), "--connect-timeout", "3000")...)
	var text string
	if err == nil {
		text, err = client.wait()
	}
	o.end()
	if err != nil {
		_ = server.Process.Kill() // no connection will arrive
		return 0, 0, errors.Join(err, <-server.ended)
	}
	if _, err := server.wait(); err != nil {
		return 0, 0, err
	}
	var report struct {
		End struct {
			Received struct {
				Bytes, Seconds float64
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return 0, 0, fmt.Errorf("iperf3: %w: %s", err, text)
	}
	return report.End.Received.Bytes, report.End.Received.Seconds, nil
}
