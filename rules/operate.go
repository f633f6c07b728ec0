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

// All is the rate of what is not limited.
var All = filter.Rate{Count: math.MaxInt, Per: time.Second}

// Log says what is told on stderr.
type Log struct {
	Format string      `key:"format"` // text or json
	Level  slog.Level  `key:"level"`
	Drops  filter.Rate `key:"drops"` // of events of dropped frames: the zero Rate is none, [All] all
}

// Status says who may ask how the box is.
type Status struct {
	Listen string `key:"listen"` // a TCP address and port; "" for nobody
	// TokenFile is the file with the token that clients have to show, by its
	// path from here; "" where Listen is a loopback address and they need none.
	TokenFile string `key:"token_file"`
}

// Exit is what becomes of the wire when the box is stopped on purpose.
type Exit string

// The ways to leave the wire.
const (
	ExitBlock  Exit = "block"  // nothing passes any more
	ExitBypass Exit = "bypass" // the two NICs are joined to one another
)

// LinkDown is what becomes of a side's link when the other side has none.
type LinkDown string

// What can become of it.
const (
	LinkHold      LinkDown = "hold"      // it stays up
	LinkPropagate LinkDown = "propagate" // it is taken down, until the other side has one again
)

// FastPath is whether the kernel may forward frames of flows that the policy has
// decided on.
type FastPath string

// The two.
const (
	FastPathAuto FastPath = "auto" // where the kernel, the rights and the devices allow it
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
	_ = l.Level.UnmarshalText([]byte(level)) // whose names they are
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

// standardListen is where the status is to be had by default.
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

// parseListen returns the address of an address and port; "localhost" and none
// at all stand for those that they stand for elsewhere.
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
