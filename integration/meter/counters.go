package meter

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
)

// scrapeInterval is the interval between two reads of the metrics.
const scrapeInterval = 20 * time.Millisecond

// mostFaults is the maximum number of stored faults.
const mostFaults = 20

// Counters polls Prometheus metrics in the text format. Counters and histograms must neither decrease
// nor vanish, and every read must succeed.
type Counters struct {
	read   func() (text string, err error)
	stop   chan struct{}
	work   errgroup.Group
	last   map[string]float64
	reads  int
	faults []string
}

// WatchCounters starts to poll. read returns the metrics.
func WatchCounters(read func() (text string, err error)) *Counters {
	c := &Counters{read: read, stop: make(chan struct{})}
	c.work.Go(func() error {
		ticker := time.NewTicker(scrapeInterval)
		defer ticker.Stop()
		for {
			select {
			case <-c.stop:
				c.look()
				return nil
			case <-ticker.C:
				c.look()
			}
		}
	})
	return c
}

// Stop reads a last time. It returns the number of reads, and up to 20 faults.
func (c *Counters) Stop() (reads int, faults []string) {
	close(c.stop)
	_ = c.work.Wait() // returns no error
	return c.reads, c.faults
}

// look reads the metrics once, and compares them with those of the previous read.
func (c *Counters) look() {
	c.reads++
	text, err := c.read()
	if err != nil {
		c.fault("read counters: %v", err)
		return
	}
	now, err := series(text)
	if err != nil {
		c.fault("parse counters: %v", err)
		return
	}
	for name, was := range c.last {
		switch value, present := now[name]; {
		case !present:
			c.fault("%s vanished (was %v)", name, was)
		case value < was:
			c.fault("%s decreased from %v to %v", name, was, value)
		}
	}
	c.last = now
}

// fault stores a fault.
func (c *Counters) fault(format string, arguments ...any) {
	if len(c.faults) < mostFaults {
		c.faults = append(c.faults, fmt.Sprintf(format, arguments...))
	}
}

// series parses metrics, and returns the values that must not decrease, by name and labels.
func series(text string) (map[string]float64, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for name, family := range families {
		for _, m := range family.Metric {
			labels := name + "{"
			for _, l := range m.Label {
				labels += l.GetName() + "=" + l.GetValue() + ","
			}
			labels += "}"
			switch family.GetType().String() {
			case "COUNTER":
				values[labels] = m.GetCounter().GetValue()
			case "HISTOGRAM":
				h := m.GetHistogram()
				values[labels+" count"], values[labels+" sum"] = float64(h.GetSampleCount()), h.GetSampleSum()
				for _, b := range h.Bucket {
					values[fmt.Sprintf("%s le=%v", labels, b.GetUpperBound())] = float64(b.GetCumulativeCount())
				}
			}
		}
	}
	return values, nil
}
