// Lists of flows, incomplete datagrams and their sources, according to the search and
// the selected kind. They are requested while the list is open, if the instance
// requires a token.

const listEvery = 5000, typing = 300;
let listTimer = 0;

function seconds(s) { return s < 10 ? s.toFixed(1) + " s" : duration(s); }
function icmp(e) { return e.icmp_type === undefined ? "" : ` type ${e.icmp_type} code ${e.icmp_code}` + (e.icmp_id === undefined ? "" : ` id ${e.icmp_id}`); }
function vlans(e) { return (e.vlans || []).map(id => `, vlan ${id}`).join(""); }

const lists = {
  flows: {
    path: "api/flows", records: "flows",
    cells: e => [["Source", end(e.src, e.sport)], ["Destination", end(e.dst, e.dport)], ["Protocol", e.protocol + icmp(e) + vlans(e)], ["From", e.from],
      ["State", e.state + (e.denied ? ", denied" : "") + (e.fast_path ? ", fast path" : "")], ["Age", seconds(e.age_seconds), "n"], ["Idle", seconds(e.idle_seconds), "n"],
      ["Expires in", seconds(e.expires_seconds), "n"], ["Packets out / back", `${whole.format(e.original_packets)} / ${whole.format(e.reply_packets)}`, "n"],
      ["Bytes out / back", `${scaled(e.original_bytes, "B")} / ${scaled(e.reply_bytes, "B")}`, "n"], ["Rule", e.rule || ""]],
    about: (shown, of) => `${whole.format(shown)} of ${counted(of.matched, "flow")}`,
  },
  waiting: {
    path: "api/waiting", records: "waiting",
    cells: e => [["Source", end(e.src, e.sport)], ["Destination", end(e.dst, e.dport)], ["Protocol", (e.protocol || "") + icmp(e) + vlans(e)], ["From", e.from],
      ["Identification", "0x" + e.identification.toString(16), "n"], ["Fragments", whole.format(e.fragments), "n"],
      ["Received", (e.received || []).join(" "), "full"], ["Missing", (e.missing || []).join(" "), "full"],
      ["Memory", scaled(e.memory_bytes, "B"), "n"], ["Age", seconds(e.age_seconds), "n"], ["Time left", seconds(e.expires_seconds), "n"],
      ["State", e.poisoned ? ", discarded" : (e.reason ? ", " : "") + (e.verdict || "waiting"), "full", e.reason]],
    about: shown => `${counted(shown, "datagram")}, oldest first`,
  },
  sources: {
    path: "api/sources", records: "sources",
    cells: e => [["Source", e.src], ["From", e.from], ["Datagrams", whole.format(e.datagrams), "n"], ["Fragments", whole.format(e.fragments), "n"],
      ["Discarded", whole.format(e.poisoned_datagrams), "n"], ["Memory", scaled(e.memory_bytes, "B"), "n"]],
    about: shown => counted(shown, "source"),
  },
};

// selected converts the words of a search to a selector of the box. A word is
// "key=value", a side, a port, an address or prefix, or a protocol.
function selected(words) {
  const of = {};
  for (const word of words) {
    const [, key, value] = /^(\w+)=(.*)$/.exec(word) || [];
    if (key) of[key] = value;
    else if (sides.includes(word)) of.from = word;
    else if (/^\d+$/.test(word)) of.port = word;
    else if (/[.:]/.test(word)) of.host = word;
    else of.proto = word;
  }
  return of;
}

function showList(kind, answer) {
  const list = lists[kind], records = answer[list.records], table = $("list-rows").parentElement;
  if (table.dataset.kind !== kind) {
    table.dataset.kind = kind;
    $("list-rows").replaceChildren();
    $("list-head").replaceChildren();
  }
  if (records.length && !$("list-head").children.length)
    for (const [heading, , className] of list.cells(records[0])) {
      const th = $("list-head").appendChild(document.createElement("th"));
      th.scope = "col";
      th.textContent = heading;
      th.className = className === "n" ? "n" : "";
    }
  rows("list-rows", records.map(list.cells));
  text("list-about", records.length ? list.about(records.length, answer) : "Nothing matches.");
  followMeaning();
}

async function runList() {
  clearTimeout(listTimer);
  $("list-search").hidden = !token;
  $("list-locked").hidden = Boolean(token);
  if (!token || !$("list").open || $("main").className) return;
  const [kind, sort] = $("list-kind").value.split(":"), words = $("list-words").value;
  const query = new URLSearchParams({...selected(wordsOf("list-words")), ...(sort ? {sort} : {})});
  try {
    const answer = await ask(`${lists[kind].path}?${query}`);
    if ($("list-kind").value.split(":")[0] !== kind || $("list-words").value !== words) return; // the user has selected another list
    if (answer.ok) showList(kind, await answer.json());
    else if (answer.status !== 401) text("list-about", (await answer.text()).trim());
  } catch (e) {
    text("list-about", "No answer.");
  }
  clearTimeout(listTimer);
  listTimer = setTimeout(runList, listEvery);
}

$("list").addEventListener("toggle", runList);
$("list-kind").addEventListener("change", runList);
$("list-words").addEventListener("input", () => { clearTimeout(listTimer); listTimer = setTimeout(runList, typing); });
