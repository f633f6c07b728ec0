const every = 1000, keptEvery = 5000, timeout = 5000, mostRules = 500, fewRules = 12;
let token = sessionStorage.getItem("token") || "";
let last = null, shown = null; // previous report, and the one whose events are shown
let rulesBefore = new Map(), rulesSpan = 0; // previous counters of the rules, for rates
let timer = 0, keptAt = 0; // time of the last request for the history

function state(value, good) {
  text("state", value);
  $("state").className = good ? "badge good" : "badge";
  document.title = `${value} · fragwall`;
}

// showSide shows a side. The first report has no rates.
function showSide(side, r, span) {
  const s = r.sides[side], b = last && last.sides[side];
  const rate = name => b ? perSecond(s[name], b[name], span) : 0;
  const bits = rate("forwarded_bytes") * 8;
  text(side + "-rate", b ? scaled(bits, "bit/s") : "–");
  facts(side + "-facts", [...(b ? [scaled(rate("forwarded_frames"), "frames/s")] : []), `${whole.format(s.forwarded_frames)} forwarded`,
    `${whole.format(s.dropped_frames)} dropped`, `${whole.format(s.waiting_frames)} waiting`]);
  const f = r.fast_path, fast = f.sides[side].forwarded_frames + f.sides[side].dropped_frames;
  facts(side + "-more", [...(f.state === "on" ? [`${whole.format(fast)} by the fast path`] : []), `from ${s.device}`, ...(s.nic ? [`${s.nic} ${s.link}`] : [`link ${s.link}`]), `mtu ${whole.format(s.mtu_bytes)}`,
    ...(s.link_speed_bytes_per_second ? [scaled(s.link_speed_bytes_per_second * 8, "bit/s")] : []), ...(s.latency_p99_seconds ?
    [`latency p50 ${latency(s.latency_p50_seconds)}`, `p99 ${latency(s.latency_p99_seconds)}`] : [])]);
  const missing = rate("missed_frames");
  $(side + "-missed").className = missing ? "warning" : "facts";
  text(side + "-missed", s.missed_frames ? `${counted(s.missed_frames, "frame")} missed, now ${scaled(missing, "/s")}: they arrived faster than fragwall read them` : "");
  return bits;
}

// ranking returns the reasons, most drops first. The first ones have a color each, the
// others share one.
function ranking(r) {
  const totals = new Map();
  for (const side of sides)
    for (const [reason, n] of Object.entries(r.sides[side].dropped)) totals.set(reason, (totals.get(reason) || 0) + n);
  return [...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a) || (a < b ? -1 : 1));
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
function showFastPath(f) {
  const sums = {};
  for (const side of sides)
    for (const [reason, n] of Object.entries(f.sides[side].passed_up_frames)) sums[reason] = (sums[reason] || 0) + n;
  const passedUp = Object.entries(sums).sort((a, b) => b[1] - a[1]).map(([reason, n]) => `${reason} ${whole.format(n)}`);
  $("fast-gauge").hidden = f.state !== "on";
  gauge("fast", f.entries, f.entries_limit, `${whole.format(f.entries)} of ${whole.format(f.entries_limit)}`);
  text("fast-about", [`Fast path: ${f.state}` + (f.reason ? ` (${f.reason})` : "") + (f.error ? `: ${f.error}` : ""),
    ...(passedUp.length ? [`frames passed up to the process: ${passedUp.join(", ")}`] : []),
    ...(f.map_errors ? [`map errors: ${whole.format(f.map_errors)}`] : [])].join("; "));
}

function showRules() {
  if (!last) return;
  const words = wordsOf("rules-filter"), all = last.rules, by = last.policy.default;
  const found = words.length ? all.filter(x => hasAll(words, x.name + " " + x.action)) : all;
  $("rules-bar").hidden = all.length <= fewRules && !words.length;
  text("rules-about", all.length ? `The first that matches decides; if none matches: ${by}.` +
    (words.length ? ` ${whole.format(found.length)} of ${counted(all.length, "rule")} with all words.` : "") +
    (found.length > mostRules ? ` The first ${whole.format(mostRules)} are shown; use the filter for others.` : "") :
    `There are no rules. The default decides: ${by}.`);
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
  const why = (e.reason ? "" : e.verdict || link) + long + (e.background ? ` (background: ${e.background})` : "");
  const rule = (e.rule || "") + (e.over_limit ? ` over the limit of ${e.over_limit}` : "");
  return [["Time", clock(e.time)], ["Reason", why, "full", e.reason], ["From", e.from], ["Protocol", (e.protocol || e.ethertype || "") + icmp],
    ["Source", end(e.src, e.sport), "full"], ["Destination", end(e.dst, e.dport), "full"], ["VLAN", (e.vlans || []).join(", ")],
    ["Fragments", e.link ? "" : fragments(e), "n"], ["Bytes", e.link ? "" : whole.format(e.bytes), "n"], ["Rule", rule.trim(), "full"]];
}
function paused() { return $("pause").getAttribute("aria-pressed") === "true"; }
function showEvents() {
  if (!shown) return;
  const words = wordsOf("filter");
  const all = shown.events.map(fields);
  const found = all.filter(f => hasAll(words, f.map(x => (x[3] || "") + x[1]).join(" ")));
  rows("event-rows", found);
  $("events-none").hidden = found.length > 0;
  text("events-none", all.length ? "No event contains all words." : "No events so far.");
  const count = words.length ? `${found.length} of ${counted(all.length, "event")}` : counted(all.length, "event");
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
    (r.policy.failed_reloads ? ` · ${r.policy.failed_reloads} failed reloads` : "") +
    (r.takeover ? ` · ${r.takeover.count} take-over${r.takeover.count > 1 ? "s" : ""}, last pause ${(1000 * r.takeover.pause_seconds).toFixed(1)} ms` : ""));
  const waiting = r.fragments.waiting_datagrams;
  const point = {at: now, span, drops: {}, waiting, waitingLow: waiting, waitingHigh: waiting};
  for (const side of sides) {
    point[side] = point[side + "Low"] = point[side + "High"] = showSide(side, r, span);
    for (const [reason, n] of Object.entries(r.sides[side].dropped))
      point.drops[reason] = (point.drops[reason] || 0) + (last ? perSecond(n, last.sides[side].dropped[reason] || 0, span) : 0);
  }
  if (span > 0) seen.push(point);
  seen = seen.filter(p => p.at <= now && p.at > now - 120);
  showWaiting(r);
  showFastPath(r.fast_path);
  rulesBefore = new Map(last ? last.rules.map(x => [x.name, x]) : []);
  rulesSpan = span;
  last = r;
  showCharts();
  showRules();
  if (!paused()) { shown = r; showEvents(); }
  followMeaning();
}

// silent marks the last report as outdated when the box does not answer.
function silent() {
  state(last ? `no answer since ${clock(last.time)}` : "no answer", false);
  if (!last) return;
  $("main").className = "stale";
  for (const side of sides) text(side + "-rate", "–");
}

function wantToken() {
  state("token needed", false);
  text("ask-wrong", token ? "Wrong token for this instance." : "");
  token = "";
  sessionStorage.removeItem("token");
  $("main").className = "unknown";
  text("about", "");
  $("mistake").hidden = true;
  $("ask").hidden = false;
  $("token").value = "";
  $("token").focus();
}

const ask = path => fetch(path, {headers: token ? {Authorization: "Bearer " + token} : {}, cache: "no-store", signal: AbortSignal.timeout(timeout)});

async function run() {
  clearTimeout(timer);
  let r;
  try {
    const answer = await ask("api/status");
    if (answer.status === 401) return wantToken();
    if (!answer.ok) throw new Error(answer.status);
    r = await answer.json();
    if (last && r.started !== last.started) { last = null; keptAt = 0; clearCharts(); }
    if (performance.now() > keptAt) await askHistory();
  } catch (e) {
    silent();
  }
  timer = setTimeout(run, every);
  if (!r) return;
  $("ask").hidden = true;
  if (token) sessionStorage.setItem("token", token);
  const first = $("main").className === "unknown";
  show(r);
  if (first) runList();
}

async function askHistory() {
  const since = keptUntil ? "?since=" + encodeURIComponent(keptUntil) : "";
  const answer = await ask("api/history" + since);
  if (!answer.ok) throw new Error(answer.status);
  addKept((await answer.json()).points);
  keptAt = performance.now() + keptEvery;
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
