const $ = id => document.getElementById(id);
const sides = ["inside", "outside"];

const whole = new Intl.NumberFormat("en");
function counted(n, noun) { return `${whole.format(n)} ${noun}${n === 1 ? "" : "s"}`; }
function scaled(n, unit) {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let i = 0;
  while (n >= 999.5 && i < prefixes.length - 1) { n /= 1000; i++; }
  return (i === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + " " + prefixes[i] + unit;
}
const mebibytes = n => (n / (1 << 20)).toFixed(1); // the unit of memory in the configuration
function duration(s) {
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (d) return `${d} d ${h} h`;
  return h ? `${h} h ${m} min` : m ? `${m} min ${Math.floor(s % 60)} s` : `${Math.floor(s)} s`;
}
function latency(s) { return s < 1e-3 ? `${(s * 1e6).toFixed(0)} µs` : `${(s * 1e3).toFixed(1)} ms`; }
function clock(time) { return new Date(time).toLocaleTimeString("en-GB"); }
function put(e, value) { if (e.textContent !== value) e.textContent = value; }
function text(id, value) { put($(id), value); }
function shape(kind, attributes) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}
function perSecond(now, before, span) { return span > 0 && now >= before ? (now - before) / span : 0; }
function wordsOf(id) { return $(id).value.toLowerCase().split(/\s+/).filter(Boolean); }
function hasAll(words, line) { line = line.toLowerCase(); return words.every(w => line.includes(w)); }

// facts sets the items of a list.
function facts(id, list) {
  const e = $(id);
  while (e.children.length > list.length) e.lastElementChild.remove();
  list.forEach((fact, i) => put(e.children[i] || e.appendChild(document.createElement("li")), fact));
}

// fill sets the text of a cell, after the button of a reason if there is one.
function fill(e, value, reason) {
  if (!reason) return put(e, value);
  if (!e.querySelector("button.why")) {
    const of = document.createElement("span"), b = of.appendChild(document.createElement("button"));
    b.type = "button";
    b.className = "why";
    of.appendChild(document.createElement("span"));
    e.replaceChildren(of);
  }
  const [button, rest] = e.firstElementChild.children;
  put(button, reason);
  put(rest, value);
}

// rows sets the rows of a table. Each cell is [heading, value, class, reason], and the
// first cell names the row. Unchanged cells are not touched, so that selections and
// screen readers are not disturbed.
function rows(id, lists) {
  const body = $(id);
  body.parentElement.tHead.hidden = !lists.length;
  while (body.rows.length > lists.length) body.lastElementChild.remove();
  lists.forEach((list, i) => {
    const row = body.rows[i] || body.appendChild(document.createElement("tr"));
    list.forEach(([heading, value, className, reason], j) => {
      let e = row.cells[j];
      if (!e) {
        e = row.appendChild(document.createElement(j ? "td" : "th"));
        if (!j) e.scope = "row";
        e.dataset.name = heading;
      }
      fill(e, String(value), reason);
      if (e.className !== (className || "")) e.className = className || "";
    });
  });
}
