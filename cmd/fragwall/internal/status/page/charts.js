// The charts show the last 2 minutes, 15 minutes or hour: first the history of the
// box, then the reports that this page has received.

const wide = 120, high = 100; // size of a chart in its own units
const colors = 8;
const ranges = {120: "2 minutes ago", 900: "15 minutes ago", 3600: "1 hour ago"};
let range = 120; // s
let kept = []; // history of the box, in points of 5 s
let keptUntil = ""; // end of the last point, as the box sent it
let seen = []; // one point per report, see pointOf

// pointOf returns an interval of a chart: its end and length in seconds, for each side
// the rate in bit/s with those of the lowest and the highest second, the dropped frames
// per second by reason, and the incomplete datagrams.
function pointOf(p) {
  const of = {at: Date.parse(p.time) / 1000, span: p.seconds, drops: {}, waiting: p.max_waiting_datagrams};
  for (const side of sides) {
    const s = p.sides[side];
    of[side] = 8 * s.forwarded_bytes / p.seconds;
    of[side + "Low"] = 8 * s.min_forwarded_bytes_per_second;
    of[side + "High"] = 8 * s.max_forwarded_bytes_per_second;
    for (const [reason, n] of Object.entries(s.dropped)) of.drops[reason] = (of.drops[reason] || 0) + n / p.seconds;
  }
  of.waitingLow = of.waitingHigh = of.waiting;
  return of;
}

// addKept adds the points of the history since the last request.
function addKept(points) {
  if (!points.length) return;
  keptUntil = points[points.length - 1].time;
  kept = kept.concat(points.map(pointOf));
  kept = kept.filter(p => p.at > kept[kept.length - 1].at - 3700);
}

// clearCharts removes all points when the page shows another instance.
function clearCharts() {
  seen = [];
  kept = [];
  keptUntil = "";
}

// merged combines the points of one column of the chart.
function merged(points) {
  if (points.length === 1) return points[0];
  const of = {at: points[points.length - 1].at, span: points.reduce((n, p) => n + p.span, 0), drops: {}};
  const mean = value => points.reduce((n, p) => n + value(p) * p.span, 0) / of.span;
  for (const key of [...sides, "waiting"]) {
    of[key] = mean(p => p[key]);
    of[key + "Low"] = Math.min(...points.map(p => p[key + "Low"]));
    of[key + "High"] = Math.max(...points.map(p => p[key + "High"]));
  }
  for (const reason of new Set(points.flatMap(p => Object.keys(p.drops)))) of.drops[reason] = mean(p => p.drops[reason] || 0);
  return of;
}

// columns returns the points of the selected range, one per column.
function columns(now) {
  const first = seen.length ? seen[0].at - seen[0].span : Infinity;
  const points = [...kept.filter(p => p.at <= first), ...seen].filter(p => p.at <= now && p.at > now - range);
  if (range <= wide) return points;
  const of = new Map();
  for (const p of points) {
    const column = Math.floor(p.at * wide / range);
    of.set(column, [...(of.get(column) || []), p]);
  }
  return [...of.values()].map(merged);
}

const x = (at, now) => wide * (1 - (now - at) / range);

// runs splits points into sequences without gaps.
function runs(points) {
  const all = [];
  for (const p of points) {
    const run = all[all.length - 1], before = run && run[run.length - 1];
    if (before && p.at - p.span - before.at < 6 + range / wide) run.push(p);
    else all.push([p]);
  }
  return all;
}

// showLine draws one value over time: its mean, and a band from minimum to maximum.
function showLine(id, points, now, key, unit) {
  const top = Math.max(...points.map(p => p[key + "High"]), 0);
  const y = value => (high - 2 - 94 * value / Math.max(1, top)).toFixed(2);
  const drawn = [shape("line", {class: "base", x1: 0, x2: wide, y1: 99, y2: 99})];
  for (const run of runs(points)) {
    const from = x(run[0].at - run[0].span, now), to = x(run[run.length - 1].at, now);
    const line = which => run.map(p => `${x(p.at, now).toFixed(2)} ${y(p[key + which])}`);
    const start = which => `${from.toFixed(2)} ${y(run[0][key + which])}`;
    drawn.push(shape("path", {class: "area", d: `M${[start(""), ...line("")].join("L")}L${to} 99L${from} 99Z`}),
      shape("path", {class: "band", d: `M${[start("High"), ...line("High"), ...line("Low").reverse(), start("Low")].join("L")}Z`}),
      shape("path", {d: `M${[start(""), ...line("")].join("L")}`}));
  }
  $(id + "-spark").replaceChildren(...drawn);
  text(id + "-top", top > 0 ? "peak " + scaled(top, unit) : "nothing in this time");
}

// showDrops draws the drops of each column, stacked by reason, and lists all reasons.
function showDrops(r, points, now) {
  const reasons = ranking(r), latest = seen.length ? seen[seen.length - 1].drops : {};
  const color = reason => Math.min(reasons.indexOf(reason), colors - 1);
  const top = Math.max(...points.map(p => Object.values(p.drops).reduce((a, b) => a + b, 0)), 0);
  const paths = Array(colors).fill("");
  for (const p of points) {
    const width = wide * p.span / range;
    let y = 99;
    for (const reason of reasons) {
      const h = top > 0 ? 97 * (p.drops[reason] || 0) / top : 0;
      y -= h;
      if (h > 0) paths[color(reason)] += `M${(x(p.at, now) - .9 * width).toFixed(2)} ${y.toFixed(2)}h${(.8 * width).toFixed(2)}v${h.toFixed(2)}h${(-.8 * width).toFixed(2)}z`;
    }
  }
  $("drops").replaceChildren(shape("line", {class: "base", x1: 0, x2: wide, y1: 99.5, y2: 99.5}),
    ...paths.map((d, i) => shape("path", {class: "f" + i, d})));
  text("drops-top", top > 0 ? "peak " + scaled(top, "/s") : "none in this time");
  $("drops-none").hidden = reasons.length > 0;
  rows("drops-rows", reasons.map(reason => [["Reason", "", "key k" + color(reason), reason],
    ...sides.map(s => ["From " + s, whole.format(r.sides[s].dropped[reason] || 0), "n"]), ["Per second", scaled(latest[reason] || 0, "/s"), "n"]]));
}

function showCharts() {
  if (!last) return;
  const now = Date.parse(last.time) / 1000, points = columns(now);
  for (const side of sides) showLine(side, points, now, side, "bit/s");
  showLine("waiting", points, now, "waiting", "datagrams");
  showDrops(last, points, now);
  for (const e of document.querySelectorAll(".ago")) put(e, ranges[range]);
}

for (const e of document.querySelectorAll("[name=range]"))
  e.addEventListener("change", () => { range = Number(e.value); showCharts(); });
