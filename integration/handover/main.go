package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"fragwall/integration/meter"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// options holds the command-line options.
type options struct {
	namespaces [verdict.Sides]string
	share      float64
	metrics    string
}

func main() {
	var o options
	flag.StringVar(&o.namespaces[verdict.Inside], "inside", "inside", "network namespace of the inside host (name of ip-netns(8))")
	flag.StringVar(&o.namespaces[verdict.Outside], "outside", "outside", "network namespace of the outside host")
	flag.Float64Var(&o.share, "share", 1, "share of the full load to send, such as 0.1")
	flag.StringVar(&o.metrics, "metrics", "", "URL of metrics to poll")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "handover:", err)
		os.Exit(1)
	}
}

// run measures the traffic with and without hand-overs, and returns the faults as an error.
func run(o options) error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	var hosts [verdict.Sides]*lab.Host
	for side, name := range o.namespaces {
		h, err := openHost(name)
		if err != nil {
			return err
		}
		defer h.Close()
		hosts[side] = h
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var counters *meter.Counters
	if o.metrics != "" {
		counters = meter.WatchCounters(func() (string, error) { return get(o.metrics) })
	}
	m, err := meter.Start(hosts, meter.Full.Share(o.share))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	stop() // from now on a signal ends the program
	with, err := m.Stop()
	if err != nil {
		return err
	}
	var faults []string
	if counters != nil {
		var reads int
		reads, faults = counters.Stop()
		fmt.Printf("counters were read %d times\n", reads)
	}
	fmt.Print("\nwith hand-overs: ", with)
	m, err = meter.Start(hosts, meter.Full.Share(o.share))
	if err != nil {
		return err
	}
	time.Sleep(with.Took)
	without, err := m.Stop()
	if err != nil {
		return err
	}
	fmt.Print("\nwithout: ", without)
	for _, f := range append(faults, with.Faults(without)...) {
		err = errors.Join(err, errors.New(f))
	}
	return err
}

// get returns the content at a URL.
func get(url string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, r.Status)
	}
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

// openHost returns the host in a namespace, with the addresses of its interface.
func openHost(name string) (h *lab.Host, err error) {
	h = &lab.Host{NIC: lab.HostNIC}
	if h.Namespace, err = lab.OpenNamespace(filepath.Join("/run/netns", name)); err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		nic, err := net.InterfaceByName(h.NIC)
		if err != nil {
			return err
		}
		h.MAC = nic.HardwareAddr
		addresses, err := nic.Addrs()
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			switch {
			case err != nil:
				return err
			case prefix.Addr().Is4():
				h.IPv4 = prefix.Addr()
			case !prefix.Addr().IsLinkLocalUnicast():
				h.IPv6 = prefix.Addr()
			}
		}
		return err
	})
	if err == nil && (!h.IPv4.IsValid() || !h.IPv6.IsValid()) {
		err = fmt.Errorf("namespace %q: %s needs an IPv4 address and an IPv6 address", name, h.NIC)
	}
	if err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}
