package main

import (
	"fmt"
	"time"
)

// plan describes a table with one trial per row and column.
type plan struct {
	title   string
	columns []column
	rows    []row
	tcp     bool // sets trial.tcp
	protect bool // sets trial.defaults
	idle    bool // sets trial.idle
}

// row is a flood, and honest traffic of some address families beside it.
type row struct {
	label    string
	flood    Flood
	families []bool // of the honest traffic; true means IPv6
}

var (
	ipv4 = []bool{false}
	ipv6 = []bool{true}
	both = []bool{false, true}
)

func familyName(families []bool) string {
	switch {
	case len(families) > 1:
		return "IPv4 and IPv6"
	case families[0]:
		return "IPv6"
	}
	return "IPv4"
}

// sourceNames describes the values of Flood.Sources.
var sourceNames = map[string]string{
	"anywhere": "random sources",
	"one":      "one source",
	"prefix":   "one prefix",
	"own":      "the honest sender's prefix",
	"self":     "one accepted sender",
}

// flooded returns the row of a flood; rate 0 means as fast as possible.
func flooded(kind, sources string, families []bool, rate int) row {
	speed := fmt.Sprintf("%d/s", rate)
	if rate == 0 {
		speed = "at full speed"
	}
	return row{
		label:    fmt.Sprintf("%s, %s, %s, %s", kind, sourceNames[sources], familyName(families), speed),
		flood:    Flood{Kind: kind, Sources: sources, Families: families, Rate: rate, Port: closedPort},
		families: families,
	}
}

// peace returns the row without a flood.
func peace(families []bool) row {
	return row{label: "none, " + familyName(families), families: families}
}

// open changes the floods of rows to a port that the policies accept.
func open(port uint16, rows ...row) []row {
	for i := range rows {
		rows[i].flood.Port = port
	}
	return rows
}

// fullPlans returns the plans of `make attack`.
func fullPlans() []plan {
	rates := plan{title: "Honest share by rate", columns: allColumns, rows: []row{peace(ipv4), peace(ipv6)}}
	for _, rate := range []int{100, 10_000, 50_000, 200_000, 0} {
		rates.rows = append(rates.rows, flooded("first fragments", "anywhere", ipv4, rate))
	}
	for _, rate := range []int{10_000, 200_000} {
		rates.rows = append(rates.rows, flooded("first fragments", "anywhere", ipv6, rate))
	}
	shapes := plan{title: "Honest share by kind of flood", columns: allColumns}
	for _, sources := range []string{"one", "prefix", "own"} {
		shapes.rows = append(shapes.rows, flooded("first fragments", sources, ipv4, 200_000))
	}
	for _, kind := range []string{"last fragments", "missing middle", "tiny", "overlapping", randomPorts} {
		shapes.rows = append(shapes.rows, flooded(kind, "anywhere", ipv4, 200_000))
	}
	shapes.rows = append(shapes.rows, flooded("first fragments", "anywhere", both, 200_000))
	streams := plan{title: "A TCP stream beside the flood", columns: allColumns, tcp: true}
	for _, rate := range []int{50_000, 200_000} {
		streams.rows = append(streams.rows, open(harmlessPort, flooded(harmless, "self", ipv4, rate))...)
		streams.rows = append(streams.rows, flooded("first fragments", "anywhere", ipv4, rate))
	}
	host := plan{title: "A Linux host with its default limits behind the box", columns: protectColumns, protect: true}
	for _, rate := range []int{100, 10_000, 200_000} {
		host.rows = append(host.rows, open(datagramPort, flooded("first fragments", "anywhere", ipv4, rate))...)
	}
	host.rows = append(host.rows, open(datagramPort, flooded("first fragments", "anywhere", ipv6, 10_000))...)
	return []plan{rates, shapes, streams, host, idlePlan(50_000, 0)}
}

// idlePlan returns a plan of idle connections beside floods of new flows at several rates.
func idlePlan(rates ...int) plan {
	p := plan{title: "Idle connections that live through a flood of flows", columns: idleColumns, idle: true}
	for _, families := range [][]bool{ipv4, ipv6} {
		for _, rate := range rates {
			p.rows = append(p.rows, open(harmlessPort, flooded(oneDatagram, "anywhere", families, rate))...)
			p.rows = append(p.rows, open(streamPort, flooded(oneSYN, "anywhere", families, rate))...)
		}
	}
	return p
}

// quickPlans returns plans that take less than half a minute.
func quickPlans() []plan {
	return []plan{{
		title:   "Honest share",
		columns: allColumns,
		rows:    []row{flooded("first fragments", "anywhere", ipv4, 10_000)},
	}, {
		title:   "A Linux host with its default limits behind the box",
		columns: protectColumns,
		rows:    open(datagramPort, flooded("first fragments", "anywhere", ipv4, 10_000)),
		protect: true,
	}, idlePlan(10_000)}
}

// idleDuration is the factor by which floods of flows last longer than other ones, because they
// must fill tables of a million entries.
const idleDuration = 3

// trial returns the trial of a row and a column.
func (p *plan) trial(r row, m column, duration time.Duration) *trial {
	if p.idle {
		duration *= idleDuration
	}
	return &trial{
		middle: m, flood: r.flood, families: r.families,
		defaults: p.protect, tcp: p.tcp, idle: p.idle, duration: duration,
	}
}
