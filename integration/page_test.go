package integration_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// screenshots is the directory to which the tests write screenshots of the page; "" for none.
var screenshots = os.Getenv("FRAGWALL_SCREENSHOTS")

// reach forwards a local port to the status server of a namespace, and returns the local address.
func reach(t *testing.T, ns *lab.Namespace) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = ns.Do(func() error {
					far, err := net.Dial("tcp", standardStatus)
					if err != nil {
						return err
					}
					defer far.Close()
					go func() {
						_, _ = io.Copy(far, c)
						_ = far.Close()
					}()
					_, err = io.Copy(c, far)
					return err
				})
			}()
		}
	}()
	return l.Addr().String()
}

// browser is a headless Chromium with one page.
type browser struct {
	ctx context.Context

	mu sync.Mutex
	// mu guards the fields below.
	complaints []string // exceptions and log entries of the page
	requests   []string // URLs that the page requested
}

// openBrowser starts Chromium. Without Chromium, the test is skipped, except in CI.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("no chromium")
	}
	must(t, err)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	b := &browser{ctx: ctx}
	b.do(t) // starts the browser
	must(t, chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			b.complaints = append(b.complaints, e.Entry.Text)
		case *network.EventRequestWillBeSent:
			b.requests = append(b.requests, e.Request.URL)
		}
	}))
	_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	must(t, err)
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	must(t, err)
	return b
}

// do runs actions in the browser.
func (b *browser) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	must(t, chromedp.Do(b.ctx, steps...))
}

// eval returns the value of an expression in the page.
func eval[T any](t *testing.T, b *browser, expression string) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	must(t, err)
	return v
}

// until waits until an expression is true in the page.
func (b *browser) until(t *testing.T, expression string) {
	t.Helper()
	eventually(t, func() error {
		if !eval[bool](t, b, expression) {
			return fmt.Errorf("%s is not true; the page shows\n%s", expression, eval[string](t, b, "document.body.innerText"))
		}
		return nil
	})
}

// picture saves a screenshot of the whole page.
func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	if screenshots == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(screenshots, name+".png"), png, 0o644))
}

// view sets the width of the window and the color scheme, and checks that the page fits.
func (b *browser) view(t *testing.T, width int64, scheme string) {
	t.Helper()
	b.do(t, chromedp.EmulateViewport(width, 800))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	must(t, err)
	if eval[bool](t, b, "document.documentElement.scrollWidth > innerWidth") {
		t.Errorf("at a width of %d the page is wider than the window", width)
	}
	// The height of a cell is that of its row. The height of its text shows the number of lines.
	if eval[bool](t, b, `[...document.querySelectorAll("td.n")].some(n => {
		const text = document.createRange()
		text.selectNodeContents(n)
		return text.getBoundingClientRect().height > 2 * parseFloat(getComputedStyle(n).fontSize)
	})`) {
		t.Errorf("at a width of %d numbers take more than one line", width)
	}
}

// traffic sends traffic for the page until the end of the test: fragmented datagrams that pass, and
// others that are dropped for several reasons.
func traffic(t *testing.T, w *wires) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := uint32(0); ctx.Err() == nil; i++ {
			for j, f := range families {
				frames := func(port uint16, id uint32) [][]byte {
					d := packettest.UDP(f.src, netip.AddrPortFrom(f.dst.Addr(), port), packettest.Body(4000))
					d.ID = id
					return d.Fragments(1448)
				}
				all := frames(5300, 4*i)
				all = append(all, frames(5301, 4*i+1)...)
				overlapping := frames(5300, 4*i+2)
				overlapping[1][len(overlapping[1])-1]++
				if i%4 == 0 {
					all = append(all, frames(5300, 4*i+2)[:2]...)
					all = append(all, overlapping[1])
				}
				if i%100 == uint32(j) {
					all = append(all, frames(5300, 4*i+3)[0]) // remains incomplete
				}
				if w.sockets[verdict.Inside].Send(lab.Between(w.Hosts[verdict.Inside], w.Hosts[verdict.Outside], all...)...) != nil {
					return
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond): // limits the rate
			}
		}
	})
	t.Cleanup(func() {
		stop()
		sending.Wait()
	})
}

const pagePolicy = onePort + `
[[rule]]
name = "logged & <b>odd</b>"
action = "reject"
protocol = "udp"
dst_port = 5302
log = true
`

// TestPage shows the status page of a box with traffic in a browser.
func TestPage(t *testing.T) {
	w := startMute(t, pagePolicy)
	b := openBrowser(t)
	traffic(t, w)
	odd := packettest.UDP(families[0].src, netip.AddrPortFrom(families[0].dst.Addr(), 5302), nil)
	w.send(t, verdict.Inside, odd.Frame())
	base := "http://" + reach(t, w.Middle) + "/"
	b.view(t, 1280, "light")
	b.do(t, chromedp.Navigate(base))

	b.until(t, `document.querySelector("#state").textContent === "ready"`)
	b.until(t, `/[1-9].* [kM]bit\/s/.test(document.querySelector("#inside-rate").textContent)`)
	b.until(t, `[...document.querySelectorAll("#drops-rows th")].map(e => e.textContent).join().includes("policy_default")`)
	b.until(t, `[...document.querySelectorAll("#drops path")].map(e => e.getAttribute("d")).join("").split("M").length > 10`)
	b.until(t, `document.querySelector("#bytes").value > 0`)
	b.until(t, `/^Fast path: o(n|ff)/.test(document.querySelector("#fast-about").textContent)`)
	b.until(t, `document.querySelectorAll("#event-rows tr").length > 20`)
	if rules := eval[string](t, b, `[...document.querySelectorAll("#rules th")].map(e => e.textContent).join("; ")`); rules != "service; logged & <b>odd</b>" {
		t.Errorf("rules %q", rules)
	}
	t.Run("keyboard", func(t *testing.T) { keyboard(t, b) })
	t.Run("undisturbed", func(t *testing.T) { undisturbed(t, b) })
	t.Run("screen reader", func(t *testing.T) { screenReader(t, b) })
	t.Run("meaning", func(t *testing.T) { meaning(t, b) })
	t.Run("history", func(t *testing.T) { historyShown(t, b, base) })
	ground := eval[string](t, b, `getComputedStyle(document.body).backgroundColor`)
	b.picture(t, "desktop-light")
	contrast(t, b)
	b.view(t, 1280, "dark")
	contrast(t, b)
	if dark := eval[string](t, b, `getComputedStyle(document.body).backgroundColor`); dark == ground {
		t.Errorf("the dark scheme has the background of the light one: %s", dark)
	}
	b.picture(t, "desktop-dark")
	b.view(t, 360, "light")
	b.picture(t, "phone-light")
	b.view(t, 360, "dark")
	b.picture(t, "phone-dark")
	contrast(t, b)
	meaning(t, b)
	b.do(t, chromedp.Click("#drops-rows button.why"))
	b.view(t, 360, "dark")
	contrast(t, b)
	b.picture(t, "phone-meaning")

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		t.Errorf("the browser reports: %s", c)
	}
	for _, r := range b.requests {
		if !strings.HasPrefix(r, base) && r != "data:," {
			t.Errorf("the page requested %s", r)
		}
	}
}

// TestPageWithoutNIC checks that the page reports a missing NIC.
func TestPageWithoutNIC(t *testing.T) {
	n := newNetwork(t)
	p := launch(t, n.Middle, nil, "run", "-c", configure(t, devices))
	p.ready(t)
	b := openBrowser(t)
	b.do(t, chromedp.Navigate("http://"+reach(t, n.Middle)+"/"))
	b.until(t, `document.querySelector("#state").textContent === "ready"`)
	must(t, n.Middle.Do(func() error { return remove(lab.OutsideNIC) }))
	b.until(t, `document.querySelector("#state").textContent === "ready, without the nic of outside"`)
	p.signal(t, syscall.SIGTERM)
	p.wait(t)
}

// TestPageUnresponsiveBox stops, continues, ends and restarts the box. The page must show when the box does
// not answer.
func TestPageUnresponsiveBox(t *testing.T) {
	n := newNetwork(t)
	file := configure(t, devices)
	p := launch(t, n.Middle, nil, "run", "-c", file)
	p.ready(t)
	b := openBrowser(t)
	b.do(t, chromedp.Navigate("http://"+reach(t, n.Middle)+"/"))
	const (
		live   = `document.querySelector("#state").textContent === "ready" && /bit/.test(document.querySelector("#inside-rate").textContent)`
		silent = `/^no answer since /.test(document.querySelector("#state").textContent) && document.querySelector("#inside-rate").textContent === "–"`
	)
	b.until(t, live)
	p.signal(t, syscall.SIGSTOP)
	b.until(t, silent)
	p.signal(t, syscall.SIGCONT)
	b.until(t, live)
	p.signal(t, syscall.SIGTERM)
	p.wait(t)
	b.until(t, silent)
	p = launch(t, n.Middle, nil, "run", "-c", file)
	b.until(t, live)
	p.signal(t, syscall.SIGTERM)
	p.wait(t)
}

// TestPageToken checks that the page asks for the token, and shows nothing else before it has the
// right one.
func TestPageToken(t *testing.T) {
	n := newNetwork(t)
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("0123456789abcdef"), 0o600))
	p := launch(t, n.Middle, nil, "run", "-c", configure(t, devices+fmt.Sprintf("[status]\ntoken_file = %q\n", token)))
	p.ready(t)
	b := openBrowser(t)
	b.do(t, chromedp.Navigate("http://"+reach(t, n.Middle)+"/"))
	const sections = `[...document.querySelectorAll("section")].filter(e => e.checkVisibility()).map(e => e.id).join()`
	b.until(t, `document.activeElement.id === "token" && `+sections+` === "ask"`)
	b.do(t, chromedp.KeyEvent("0123456789abcdeX\r"))
	b.until(t, `document.querySelector("#ask-wrong").textContent !== "" && `+sections+` === "ask"`)
	b.do(t, chromedp.KeyEvent("0123456789abcdef\r"))
	b.until(t, `document.querySelector("#state").textContent === "ready" && !`+sections+`.includes("ask")`)
	p.signal(t, syscall.SIGTERM)
	p.wait(t)
}

// TestPageLists shows and filters the lists of flows, incomplete datagrams and sources by keyboard, in
// narrow windows too, and in both color schemes.
func TestPageLists(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("0123456789abcdef"), 0o600))
	policy := strings.Replace(pagePolicy, "[policy]\n", "[policy]\nstateful = true\n", 1)
	w := startMute(t, policy+fmt.Sprintf("[status]\ntoken_file = %q\n", token))
	traffic(t, w)
	b := openBrowser(t)
	b.do(t, chromedp.Navigate("http://"+reach(t, w.Middle)+"/"))
	b.until(t, `document.activeElement.id === "token"`)
	b.do(t, chromedp.KeyEvent("0123456789abcdef\r"))
	b.until(t, `document.querySelector("#state").textContent === "ready"`)
	const sources = `[...document.querySelectorAll("#list-rows th")].map(e => e.textContent).sort().join(" ")`
	b.do(t, chromedp.Focus("#list summary"), chromedp.KeyEvent("\r"))
	b.until(t, sources+` === "10.0.0.4:40000 [2001:db8::4]:40000"`)
	b.until(t, `document.querySelector("#list-about").textContent === "2 of 2 flows"`)
	b.do(t, chromedp.Focus("#list-words"), chromedp.KeyEvent("2001:db8::/32 udp dport=5300"))
	b.until(t, sources+` === "[2001:db8::4]:40000"`)
	b.do(t, chromedp.KeyEvent(" outside"))
	b.until(t, `document.querySelector("#list-about").textContent === "Nothing matches."`)
	b.do(t, chromedp.KeyEvent(" n"))
	b.until(t, `document.querySelector("#list-about").textContent.startsWith("--proto: ")`)
	b.do(t, chromedp.KeyEvent(strings.Repeat(kb.Backspace, len(" outside n"))))
	b.until(t, sources+` === "[2001:db8::4]:40000"`)
	b.do(t, chromedp.KeyEvent(strings.Repeat(kb.Backspace, len(" udp dport=5300"))))
	eval[bool](t, b, `(e => { e.value = "waiting"; return e.dispatchEvent(new Event("change")) })(document.querySelector("#list-kind"))`)
	b.until(t, `[...document.querySelectorAll("#list-rows td")].some(e => e.textContent === "fragment_conflict, discarded")`)
	b.until(t, `[...document.querySelectorAll("#list-head th")].map(e => e.textContent).includes("Missing")`)
	eval[bool](t, b, `(e => { e.value = "sources"; return e.dispatchEvent(new Event("change")) })(document.querySelector("#list-kind"))`)
	b.until(t, sources+` === "2001:db8::/56"`)
	eval[bool](t, b, `(e => { e.value = "waiting"; return e.dispatchEvent(new Event("change")) })(document.querySelector("#list-kind"))`)
	b.until(t, `document.querySelectorAll("#list-rows tr").length > 1`)
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 360} {
			b.view(t, width, scheme)
			contrast(t, b)
			b.picture(t, fmt.Sprintf("lists-%d-%s", width, scheme))
		}
	}
	w.stop(t)
}

// TestPageManyRules filters for a rule that the page does not show because there are too many.
func TestPageManyRules(t *testing.T) {
	n := newNetwork(t)
	var policy strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&policy, "[[rule]]\nname = \"rule %d\"\naction = \"accept\"\n", i)
	}
	p := launch(t, n.Middle, nil, "run", "-c", configure(t, devices+policy.String()))
	p.ready(t)
	b := openBrowser(t)
	b.do(t, chromedp.Navigate("http://"+reach(t, n.Middle)+"/"))
	b.until(t, `document.querySelectorAll("#rules tr").length === 500`)
	b.do(t, chromedp.Focus("#rules-filter"), chromedp.KeyEvent("RULE 999"))
	b.until(t, `[...document.querySelectorAll("#rules th")].map(e => e.textContent).join() === "rule 999"`)
	p.signal(t, syscall.SIGTERM)
	p.wait(t)
}
