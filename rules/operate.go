package rules

import (
	"log/slog"
	"math"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"fragwall/filter"
)

// All is the rate of events without a limit.
var All = filter.Rate{Count: math.MaxInt, Per: time.Second}

// Log is the configuration of the log on stderr.
type Log struct {
	Format string      `key:"format"` // text or json
	Level  slog.Level  `key:"level"`
	Drops  filter.Rate `key:"drops"` // rate of events for dropped frames: the zero Rate is none, [All] all
}

// Status is the configuration of the status server.
type Status struct {
	Listen string `key:"listen"` // TCP address and port; "" turns the server off
	// TokenFile is the path of the file with the token that clients must send; "" if
	// Listen is a loopback address and there is none.
	TokenFile string `key:"token_file"`
}

// Exit decides what a planned stop leaves of the wire.
type Exit string

// The ways to leave the wire.
const (
	ExitBlock  Exit = "block"  // nothing passes
	ExitBypass Exit = "bypass" // the two NICs are joined to each other
)

// LinkDown decides what happens to a side's link when the other side loses its link.
type LinkDown string

// The values of LinkDown.
const (
	LinkHold      LinkDown = "hold"      // it stays up
	LinkPropagate LinkDown = "propagate" // it is taken down until the other side has a link again
)

// FastPath decides whether the kernel may forward frames of flows with a known verdict.
type FastPath string

// The values of FastPath.
const (
	FastPathAuto FastPath = "auto" // if the kernel, the capabilities and the devices allow it
	FastPathOff  FastPath = "off"
)

var (
	formats = []string{"text", "json"}
	levels  = []string{"debug", "info", "warn", "error"}
	exits   = []string{string(ExitBlock), string(ExitBypass)}
	downs   = []string{string(LinkHold), string(LinkPropagate)}
	paths   = []string{string(FastPathAuto), string(FastPathOff)}
)

// readLog reads [log].
func readLog(t table) Log {
	l := Log{Format: t.field("format").choice(formats[0], formats)}
	level := t.field("level").choice("info", levels)
	_ = l.Level.UnmarshalText([]byte(level)) // the names are those of slog
	l.Drops = t.field("drops").drops()
	return l
}

// drops returns the field's rate of events, or the default.
func (f field) drops() filter.Rate {
	switch f.value {
	case nil:
		return filter.Rate{Count: 10, Per: time.Second}
	case "off":
		return filter.Rate{}
	case "all":
		return All
	}
	text, isText := f.value.(string)
	number, _ := f.value.(int64)
	if strings.Contains(text, "/") || number > 0 {
		return f.rate()
	}
	wrong := f.kind()
	if isText {
		wrong = quote(text) + " is not a rate"
	}
	f.fail("%s; want a number of events and s, m or h, such as \"10/s\", or \"off\" or \"all\"", wrong)
	return filter.Rate{}
}

// standardListen is the default address of the status server.
const standardListen = "127.0.0.1:9477"

// readStatus reads [status].
func readStatus(t table) Status {
	listen, token := t.field("listen"), t.field("token_file")
	s := Status{Listen: listen.text(standardListen, standardListen), TokenFile: token.text("", "token")}
	if _, isText := token.value.(string); isText && s.TokenFile == "" {
		token.fail("the name is empty; want a file name, or remove it")
	}
	if s.TokenFile != "" && !filepath.IsAbs(s.TokenFile) {
		s.TokenFile = filepath.Join(filepath.Dir(t.report.file), s.TokenFile)
	}
	if s.Listen == "" {
		return s
	}
	address, ok := parseListen(s.Listen)
	switch {
	case !ok:
		listen.fail("%s is not an address and a port; want such as %q or \"[::1]:9477\", or \"\" for no status", quote(s.Listen), standardListen)
	case !address.IsLoopback() && !token.set():
		listen.fail("%s is not a loopback address, so other hosts could read the status; add token_file, or listen on %q",
			quote(s.Listen), standardListen)
	}
	return s
}

// parseListen returns the address of an address and port. "localhost" and an empty
// address mean what they mean elsewhere.
func parseListen(text string) (netip.Addr, bool) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return netip.Addr{}, false
	}
	if port, err := strconv.ParseUint(text[i+1:], 10, 16); err != nil || port == 0 {
		return netip.Addr{}, false
	}
	switch host := text[:i]; host {
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	case "":
		return netip.IPv6Unspecified(), true
	}
	at, err := netip.ParseAddrPort(text)
	return at.Addr(), err == nil
}
