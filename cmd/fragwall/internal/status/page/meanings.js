// The page shows the meaning of a reason and a suggested action next to its button
// while the mouse or the focus is on it, and after a click until the next one or Escape.

let explained = null; // button whose reason is explained
let pinned = false; // by a click

function showMeaning(button) {
  const of = meanings[button.textContent];
  if (!of) return;
  if (explained && explained !== button) hideMeaning();
  explained = button;
  button.setAttribute("aria-describedby", "meaning");
  text("meaning-reason", button.textContent);
  text("meaning-means", of.means);
  text("meaning-do", of.do);
  $("meaning").hidden = false;
  placeMeaning();
}

function hideMeaning() {
  if (!explained) return;
  explained.removeAttribute("aria-describedby");
  explained = null;
  pinned = false;
  $("meaning").hidden = true;
}

// placeMeaning places the explanation within the window, below its button, or above it
// if there is more room.
function placeMeaning() {
  if (!explained) return;
  const b = explained.getBoundingClientRect(), box = $("meaning"), gap = 4;
  if (!explained.isConnected || b.bottom < 0 || b.top > innerHeight) return hideMeaning();
  box.style.maxHeight = Math.max(b.top, innerHeight - b.bottom) - 2 * gap + "px";
  const m = box.getBoundingClientRect();
  const below = innerHeight - b.bottom >= m.height + 2 * gap || innerHeight - b.bottom >= b.top;
  box.style.top = (below ? b.bottom + gap : b.top - gap - m.height) + "px";
  box.style.left = Math.max(gap, Math.min(b.left, document.documentElement.clientWidth - m.width - gap)) + "px";
}

// followMeaning moves the explanation to its button after the rows were updated.
function followMeaning() {
  if (!explained) return;
  if (!explained.isConnected || !explained.getClientRects().length) hideMeaning();
  else if ($("meaning-reason").textContent !== explained.textContent) showMeaning(explained);
}

const whyAt = e => e.target instanceof Element ? e.target.closest("button.why") : null;
document.addEventListener("mouseover", e => { const b = whyAt(e); if (b && !pinned) showMeaning(b); });
document.addEventListener("mouseout", e => {
  const to = e.relatedTarget;
  if (explained && !pinned && document.activeElement !== explained && !(to instanceof Node && (explained.contains(to) || $("meaning").contains(to)))) hideMeaning();
});
document.addEventListener("focusin", e => { const b = whyAt(e); if (b) showMeaning(b); });
document.addEventListener("focusout", e => { if (e.target === explained) hideMeaning(); });
document.addEventListener("click", e => {
  const b = whyAt(e);
  if (!b) { if (!$("meaning").contains(e.target)) hideMeaning(); return; }
  if (pinned && explained === b) return hideMeaning();
  showMeaning(b);
  pinned = true;
});
document.addEventListener("keydown", e => { if (e.key === "Escape") hideMeaning(); });
document.addEventListener("scroll", placeMeaning, {capture: true, passive: true});
window.addEventListener("resize", placeMeaning);
