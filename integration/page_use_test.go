package integration_test

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// undisturbed checks that the page does not announce periodic updates to a screen reader, and does not
// replace elements at each update.
func undisturbed(t *testing.T, b *browser) {
	eval[bool](t, b, `(() => {
		window.announced = [];
		for (const e of document.querySelectorAll("[role=status], [role=alert], [aria-live]"))
			new MutationObserver(() => announced.push(e.id + ": " + e.textContent)).observe(e, {childList: true, characterData: true, subtree: true});
		window.reports = 0;
		new MutationObserver(() => reports++).observe(document.querySelector("#about"), {childList: true});
		window.row = document.querySelector("#rules tr");
		return true;
	})()`)
	b.until(t, "reports >= 3")
	if announced := eval[string](t, b, `announced.join("; ")`); announced != "" {
		t.Errorf("the page announced: %s", announced)
	}
	if !eval[bool](t, b, `row.isConnected`) {
		t.Error("the page replaces the rows at each update")
	}
}

// keyboard filters and pauses the events by keyboard.
func keyboard(t *testing.T, b *browser) {
	b.do(t, chromedp.Focus("#filter"), chromedp.KeyEvent("odd 5302"))
	b.until(t, `document.querySelectorAll("#event-rows tr").length === 1`)
	b.do(t, chromedp.KeyEvent(kb.Tab))
	if focus := eval[string](t, b, "document.activeElement.id"); focus != "pause" {
		t.Fatalf("Tab moves the focus to %q, want pause", focus)
	}
	b.do(t, chromedp.KeyEvent(" "))
	b.until(t, `document.querySelector("#pause").getAttribute("aria-pressed") === "true"`)
	b.do(t, chromedp.KeyEvent(" "), chromedp.Focus("#filter"), chromedp.KeyEvent(strings.Repeat(kb.Backspace, len("odd 5302"))))
	b.until(t, `document.querySelectorAll("#event-rows tr").length > 20`)
}

// screenReader checks the accessibility tree of the page.
func screenReader(t *testing.T, b *browser) {
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	must(t, err)
	named := map[string]int{}
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role := strings.Trim(string(n.Role.Value), `"`)
		switch role {
		case "button", "searchbox", "table", "image", "meter", "region", "heading", "link", "columnheader", "rowheader":
			if n.Name == nil || strings.Trim(string(n.Name.Value), `"`) == "" {
				t.Errorf("an element of role %s has no name", role)
			}
			named[role]++
		}
	}
	for role, least := range map[string]int{"button": 1, "searchbox": 1, "table": 3, "image": 3, "meter": 2, "region": 6, "heading": 7, "link": 1, "columnheader": 20} {
		if named[role] < least {
			t.Errorf("%d elements of role %s, want at least %d", named[role], role, least)
		}
	}
}

// meaning opens the explanation of a reason by keyboard and by mouse, and checks that it
// fits into the window.
func meaning(t *testing.T, b *browser) {
	t.Helper()
	const (
		first = `document.querySelector("#drops-rows button.why")`
		shown = `(() => {
			const box = document.querySelector("#meaning"), r = box.getBoundingClientRect();
			return box.checkVisibility() && r.left >= 0 && r.right <= innerWidth && r.top >= 0 && r.bottom <= innerHeight &&
				document.querySelector("#meaning-reason").textContent === ` + first + `.textContent &&
				` + first + `.getAttribute("aria-describedby") === "meaning" &&
				document.querySelector("#meaning-means").textContent !== "" && document.querySelector("#meaning-do").textContent !== "";
		})()`
		hidden = `!document.querySelector("#meaning").checkVisibility() && !document.querySelector("[aria-describedby=meaning]")`
	)
	b.do(t, chromedp.Focus("#drops-rows button.why"))
	b.until(t, shown)
	b.do(t, chromedp.KeyEvent(kb.Escape))
	b.until(t, hidden)
	b.do(t, chromedp.KeyEvent("\r")) // acts as a click
	b.until(t, shown)
	b.do(t, chromedp.KeyEvent("\r"))
	b.until(t, hidden)
	eval[bool](t, b, `document.activeElement.blur() === undefined`)
	b.do(t, chromedp.Click("#drops-rows button.why"))
	b.until(t, shown)
	eval[bool](t, b, `window.scrollBy(0, 20) === undefined`)
	b.until(t, shown)
	b.do(t, chromedp.Click("#drops-title"))
	b.until(t, hidden)
	eval[bool](t, b, first+`.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}))`)
	b.until(t, shown)
	eval[bool](t, b, first+`.dispatchEvent(new MouseEvent("mouseout", {bubbles: true, relatedTarget: document.querySelector("#meaning")}))`)
	b.until(t, shown) // the pointer is on the explanation
	eval[bool](t, b, first+`.dispatchEvent(new MouseEvent("mouseout", {bubbles: true, relatedTarget: document.body}))`)
	b.until(t, hidden)
}

// historyShown reloads the page, which must show the history at once, and selects other ranges.
func historyShown(t *testing.T, b *browser, base string) {
	b.until(t, `kept.some(p => p.inside > 0 && p.drops.policy_default > 0)`)
	b.do(t, chromedp.Navigate(base))
	b.until(t, `last !== null`)
	if !eval[bool](t, b, `kept.length > 0 && document.querySelector("#inside-spark path.area") !== null && [...document.querySelectorAll("#drops path")].some(e => e.getAttribute("d"))`) {
		t.Error("a page that was just opened does not show the history")
	}
	b.do(t, chromedp.Focus("[name=range][value='120']"))
	for _, r := range []struct{ ago, seconds string }{{"15 minutes ago", "900"}, {"1 hour ago", "3600"}} {
		b.do(t, chromedp.KeyEvent(kb.ArrowRight))
		b.until(t, `[...document.querySelectorAll(".ago")].every(e => e.textContent === "`+r.ago+`") && String(range) === "`+r.seconds+`"`)
		b.until(t, `columns(last.time ? Date.parse(last.time) / 1000 : 0).length > 0 && document.querySelector("#inside-spark path.area") !== null`)
	}
}

// contrast checks that the contrast of all visible text meets WCAG 2.2, level AA (success criterion
// 1.4.3).
func contrast(t *testing.T, b *browser) {
	t.Helper()
	low := eval[string](t, b, `(() => {
		const numbers = color => color.match(/[\d.]+/g).map(Number);
		const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
			.reduce((n, v, i) => n + v * [.2126, .7152, .0722][i], 0);
		const behind = e => {
			for (; e; e = e.parentElement) {
				const c = numbers(getComputedStyle(e).backgroundColor);
				if (c.length < 4 || c[3] === 1) return c;
			}
			return [255, 255, 255];
		};
		const low = new Set();
		for (const e of document.querySelectorAll("body *")) {
			const text = [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
			if (!text && !e.matches("input") || !e.checkVisibility() || e.closest(".hidden, .skip, script, noscript")) continue;
			const s = getComputedStyle(e), size = parseFloat(s.fontSize), large = size >= 24 || size >= 18.66 && s.fontWeight >= 700;
			const [a, b] = [luminance(numbers(s.color)), luminance(behind(e))].sort((x, y) => y - x);
			const ratio = (a + .05) / (b + .05);
			if (ratio < (large ? 3 : 4.5)) low.add(e.tagName + "." + e.className + " " + e.textContent.slice(0, 20) + ": " + ratio.toFixed(2));
		}
		return [...low].join("; ");
	})()`)
	if low != "" {
		t.Errorf("too little contrast: %s", low)
	}
}
