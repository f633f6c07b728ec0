"use strict";
const seconds = 120, colors = 8, every = 1000, timeout = 5000, mostRules = 500, fewRules = 12;
const $ = id => document.getElementById(id);
const sides = ["inside", "outside"];
let token = sessionStorage.getItem("token") || "";
let last = null, shown = null; // the report before, and the one whose events are shown
let rulesBefore = new Map(), rulesSpan = 0; // what the rules' rates are from
let past = []; // of each report: {at, span: s, inside, outside: bit/s, drops: {reason: frames a second}}
let timer = 0;

const whole = new Intl.NumberFormat("en");
function scaled(n, unit) {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let i = 0;
  while (n >= 999.5 && i < prefixes.length - 1) { n /= 1000; i++; }
  return (i === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + " " + prefixes[i] + unit;
}
const mebibytes = n => (n / (1 << 20)).toFixed(1); // as memory stands in the configuration
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

// facts gives a list these items.
function facts(id, list) {
  const e = $(id);
  while (e.children.length > list.length) e.lastElementChild.remove();
  list.forEach((fact, i) => put(e.children[i] || e.appendChild(document.createElement("li")), fact));
}

// rows gives a table these rows of [heading, value, class], the first of each
// its name. What stays as it was is not touched: who selects it, or has it read
// out, is not disturbed.
function rows(id, lists) {
  const body = $(id);
  body.parentElement.tHead.hidden = !lists.length;
  while (body.rows.length > lists.length) body.lastElementChild.remove();
  lists.forEach((list, i) => {
    const row = body.rows[i] || body.appendChild(document.createElement("tr"));
    list.forEach(([heading, value, className], j) => {
      let e = row.cells[j];
      if (!e) {
        e = row.appendChild(document.createElement(j ? "td" : "th"));
        if (!j) e.scope = "row";
        e.dataset.name = heading;
      }
      put(e, String(value));
      if (e.className !== (className || "")) e.className = className || "";
    });
  });
}

function state(value, good) {
  text("state", value);
  $("state").className = good ? "badge good" : "badge";
  document.title = `${value} · fragwall`;
}

// The rates of a side; those of the first report are not known.
function showSide(side, r, span) {
  const s = r.sides[side], b = last && last.sides[side];
  const rate = name => b ? perSecond(s[name], b[name], span) : 0;
  const bits = rate("forwarded_bytes") * 8;
  text(side + "-rate", b ? scaled(bits, "bit/s") : "–");
  facts(side + "-facts", [...(b ? [scaled(rate("forwarded_frames"), "frames/s")] : []), `${whole.format(s.forwarded_frames)} forwarded`,
    `${whole.format(s.dropped_frames)} dropped`, `${whole.format(s.waiting_frames)} waiting`]);
  facts(side + "-more", [`from ${s.device}`, ...(s.nic ? [`${s.nic} ${s.link}`] : [`link ${s.link}`]), `mtu ${whole.format(s.mtu_bytes)}`,
    ...(s.link_speed_bytes_per_second ? [scaled(s.link_speed_bytes_per_second * 8, "bit/s")] : []), ...(s.latency_p99_seconds ?
    [`through the box: half within ${latency(s.latency_p50_seconds)}`, `99 % within ${latency(s.latency_p99_seconds)}`] : [])]);
  const missing = rate("missed_frames");
  $(side + "-missed").className = missing ? "warning" : "facts";
  text(side + "-missed", s.missed_frames ? `${whole.format(s.missed_frames)} frames missed, now ${scaled(missing, "/s")}: they came faster than the box read them` : "");
  return bits;
}

function left(p, now) { return seconds - (now - p.at); }
function showSpark(side, now) {
  const top = Math.max(...past.map(p => p[side]), 0);
  const height = p => (98 - 94 * p[side] / Math.max(1, top)).toFixed(2);
  const drawn = [shape("line", {class: "base", x1: 0, x2: seconds, y1: 99, y2: 99})];
  if (past.length) {
    const from = left(past[0], now) - past[0].span;
    const line = `M${from} ${height(past[0])}L` + past.map(p => `${left(p, now)} ${height(p)}`).join("L");
    drawn.push(shape("path", {class: "area", d: `${line}L${seconds} 99L${from} 99Z`}), shape("path", {d: line}));
  }
  $(side + "-spark").replaceChildren(...drawn);
  text(side + "-top", top > 0 ? "peak " + scaled(top, "bit/s") : "nothing in this time");
}

// The reasons that most was dropped for have a color each, the others one.
function ranking(r) {
  const totals = new Map();
  for (const side of sides)
    for (const [reason, n] of Object.entries(r.sides[side].dropped)) totals.set(reason, (totals.get(reason) || 0) + n);
  return [...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a) || (a < b ? -1 : 1));
}
function showDrops(r, now) {
  const reasons = ranking(r), latest = past.length ? past[past.length - 1].drops : {};
  const color = reason => Math.min(reasons.indexOf(reason), colors - 1);
  const top = Math.max(...past.map(p => Object.values(p.drops).reduce((a, b) => a + b, 0)), 0);
  const bars = [shape("line", {class: "base", x1: 0, x2: seconds, y1: 99.5, y2: 99.5})];
  for (const p of past) {
    let y = 99;
    for (const reason of reasons) {
      const h = top > 0 ? 97 * (p.drops[reason] || 0) / top : 0;
      if (h > 0) bars.push(shape("rect", {class: "f" + color(reason), x: left(p, now) - .9 * p.span, width: .8 * p.span, y: y - h, height: h}));
      y -= h;
    }
  }
  $("drops").replaceChildren(...bars);
  text("drops-top", top > 0 ? "peak " + scaled(top, "/s") : "none in this time");
  $("drops-none").hidden = reasons.length > 0;
  rows("drops-rows", reasons.map(reason => [["Reason", reason, "key k" + color(reason)],
    ...sides.map(s => ["From " + s, whole.format(r.sides[s].dropped[reason] || 0), "n"]), ["Per second", scaled(latest[reason] || 0, "/s"), "n"]]));
}

function gauge(id, value, limit, words) {
  $(id).value = limit > 0 ? value / limit : 0;
  text(id + "-text", words);
}
function showWaiting(r) {
  const f = r.fragments;
  text("waiting-mode", `Mode: ${f.mode}`);
  gauge("bytes", f.waiting_bytes, f.waiting_bytes_limit, `${mebibytes(f.waiting_bytes)} of ${mebibytes(f.waiting_bytes_limit)} MiB`);
  gauge("datagrams", f.waiting_datagrams, f.waiting_datagrams_limit, `${whole.format(f.waiting_datagrams)} of ${whole.format(f.waiting_datagrams_limit)}`);
  $("flows-gauge").hidden = !r.policy.stateful;
  gauge("flows", r.flows.known, r.flows.limit, `${whole.format(r.flows.known)} of ${whole.format(r.flows.limit)}`);
}

function showRules() {
  if (!last) return;
  const words = wordsOf("rules-filter"), all = last.rules, by = last.policy.default;
  const found = words.length ? all.filter(x => hasAll(words, x.name + " " + x.action)) : all;
  $("rules-bar").hidden = all.length <= fewRules && !words.length;
  text("rules-about", all.length ? `The first that matches decides; where none does: ${by}.` +
    (words.length ? ` ${whole.format(found.length)} of ${whole.format(all.length)} rules have all of these words.` : "") +
    (found.length > mostRules ? ` The first ${whole.format(mostRules)} are shown: filter for others.` : "") :
    `There are none. What decides on everything is the default: ${by}.`);
  rows("rules", found.slice(0, mostRules).map(x => {
    const b = rulesBefore.get(x.name);
    return [["Rule", x.name], ["Action", x.action, "action " + x.action], ["Datagrams", whole.format(x.datagrams), "n"],
      ["Per second", b ? scaled(perSecond(x.datagrams, b.datagrams, rulesSpan), "/s") : "–", "n"], ["Bytes", scaled(x.bytes, "B"), "n"],
      ["Over limit", x.over_limit_datagrams === undefined ? "–" : whole.format(x.over_limit_datagrams), "n"], ["Line", x.line, "n"]];
  }));
}

function end(address, port) { return address === undefined ? "" : port === undefined ? address : address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`; }
function fragments(e) {
  return [e.fragments || "whole", ...(e.identification === undefined ? [] : [`id 0x${e.identification.toString(16)}`]),
    ...(e.offset === undefined ? [] : [`offset ${e.offset}${e.more_fragments ? "+" : ""}`]), ...(e.missing ? [`missing ${e.missing.join(" ")}`] : [])].join(", ");
}
function fields(e) {
  const icmp = e.icmp_type === undefined ? "" : ` type ${e.icmp_type} code ${e.icmp_code}`;
  const link = e.link ? `link of ${e.device} ${e.link}` : "";
  const long = e.mtu ? ` (${whole.format(e.length)} of ${whole.format(e.mtu)} bytes)` : "";
  const why = (e.reason || e.verdict || link) + long + (e.background ? ` (background: ${e.background})` : "");
  const rule = (e.rule || "") + (e.over_limit ? ` over the limit of ${e.over_limit}` : "");
  return [["Time", clock(e.time)], ["Reason", why, "full"], ["From", e.from], ["Protocol", (e.protocol || e.ethertype || "") + icmp],
    ["Source", end(e.src, e.sport), "full"], ["Destination", end(e.dst, e.dport), "full"], ["VLAN", (e.vlans || []).join(", ")],
    ["Fragments", e.link ? "" : fragments(e), "n"], ["Bytes", e.link ? "" : whole.format(e.bytes), "n"], ["Rule", rule.trim(), "full"]];
}
function paused() { return $("pause").getAttribute("aria-pressed") === "true"; }
function showEvents() {
  if (!shown) return;
  const words = wordsOf("filter");
  const all = shown.events.map(fields);
  const found = all.filter(f => hasAll(words, f.map(x => x[1]).join(" ")));
  rows("event-rows", found);
  $("events-none").hidden = found.length > 0;
  text("events-none", all.length ? "No event has all of these words." : "No events so far.");
  const count = words.length ? `${found.length} of ${all.length} events` : `${all.length} events`;
  text("events-about", `${count}, ${whole.format(shown.events_suppressed)} more suppressed` + (paused() ? `; paused at ${clock(shown.time)}` : ""));
  return count;
}

function show(r) {
  const now = Date.parse(r.time) / 1000, span = last ? now - Date.parse(last.time) / 1000 : 0;
  const gone = sides.filter(side => r.sides[side].nic_joined === false);
  $("main").className = "";
  const down = sides.filter(side => r.sides[side].link === "down" && !gone.includes(side));
  state((r.ready ? "ready" : "not ready") + (r.policy.last_good ? ", with the last good configuration" : "") +
    (gone.length ? `, without the nic of ${gone.join(" and ")}` : "") + (down.length ? `, no link at ${down.join(" and ")}` : ""),
    r.ready && !gone.length && !r.policy.last_good);
  $("mistake").hidden = !r.policy.mistake;
  text("mistake", r.policy.mistake ? `The configuration file is broken: ${r.policy.mistake}` : "");
  text("about", `version ${r.version} · up ${duration(r.uptime_seconds)} · policy ${r.policy.generation}, since ${new Date(r.policy.since).toLocaleString("en-GB")}` +
    (r.policy.failed_reloads ? ` · ${r.policy.failed_reloads} failed reloads` : ""));
  const point = {at: now, span, drops: {}};
  for (const side of sides) {
    point[side] = showSide(side, r, span);
    for (const [reason, n] of Object.entries(r.sides[side].dropped))
      point.drops[reason] = (point.drops[reason] || 0) + (last ? perSecond(n, last.sides[side].dropped[reason] || 0, span) : 0);
  }
  if (span > 0) past.push(point);
  past = past.filter(p => p.at <= now && p.at > now - seconds);
  for (const side of sides) showSpark(side, now);
  showDrops(r, now);
  showWaiting(r);
  rulesBefore = new Map(last ? last.rules.map(x => [x.name, x]) : []);
  rulesSpan = span;
  last = r;
  showRules();
  if (!paused()) { shown = r; showEvents(); }
}

// What was true before the box fell silent is not shown as if it still were.
function silent() {
  state(last ? `no answer since ${clock(last.time)}` : "no answer", false);
  if (!last) return;
  $("main").className = "stale";
  for (const side of sides) text(side + "-rate", "–");
}

function wantToken() {
  state("token needed", false);
  text("ask-wrong", token ? "This is not the token of this instance." : "");
  token = "";
  sessionStorage.removeItem("token");
  $("main").className = "unknown";
  text("about", "");
  $("mistake").hidden = true;
  $("ask").hidden = false;
  $("token").value = "";
  $("token").focus();
}

async function run() {
  clearTimeout(timer);
  let r;
  try {
    const answer = await fetch("api/status", {headers: token ? {Authorization: "Bearer " + token} : {}, cache: "no-store", signal: AbortSignal.timeout(timeout)});
    if (answer.status === 401) return wantToken();
    if (!answer.ok) throw new Error(answer.status);
    r = await answer.json();
  } catch (e) {
    silent();
  }
  timer = setTimeout(run, every);
  if (!r) return;
  $("ask").hidden = true;
  if (token) sessionStorage.setItem("token", token);
  if (last && r.started !== last.started) { last = null; past = []; }
  show(r);
}

$("token-form").addEventListener("submit", e => {
  e.preventDefault();
  token = $("token").value.trim();
  run();
});
$("rules-filter").addEventListener("input", showRules);
$("filter").addEventListener("input", () => text("events-found", showEvents() || ""));
$("pause").addEventListener("click", () => {
  $("pause").setAttribute("aria-pressed", !paused());
  if (last && !paused()) shown = last;
  showEvents();
});
run();
