// Dead letters: reasons, the last ones to open, and the command that replays them.

import { bars, byId, keyed, make, set } from "/dom.js";
import { paint } from "/colours.js";
import { ago, count, date, number, percent, spaced } from "/format.js";

function row(term, value, name = "") {
  const line = make("div");
  line.append(make("dt", term), make("dd", value, name));
  return line;
}

function text({ text: shown, bytes: size }) {
  if (shown != null) return row("Text", shown, "text");
  return row("Text", `${size == null ? "" : `${count(size, "byte")}, `}hidden: http.show_texts is off`);
}

function letter(one) {
  const element = make("details", "", "letter");
  const head = make("summary");
  head.append(make("span", spaced(one.reason), "reason"), make("bdi", `${one.topic}/${one.partition}/${one.offset}`, "quiet"), make("time", "", "quiet"));
  const facts = make("dl", "", "facts-list");
  facts.append(
    row("Message", one.message || "–"),
    row("Source", `${one.topic}, partition ${one.partition}, offset ${number(one.offset)}`),
    row("At", date(one.at)),
    ...(one.stack_hash ? [row("Stack hash", one.stack_hash, "mono")] : []),
    text(one),
  );
  element.append(head, facts);
  return element;
}

export function dead(shown) {
  const { by_reason: reasons = {}, rate, latest = [], command, command_needs: needs = [] } = shown.dead_letters;
  const all = Object.entries(reasons).filter(([, value]) => value).sort(([, a], [, b]) => b - a);
  const total = all.reduce((sum, [, value]) => sum + value, 0);
  set("dead-rate", total ? `${count(total, "record")} since the start${rate ? `, ${number(rate, rate < 10 ? 2 : 0)} a second now` : ""}` : "");
  bars(byId("reasons"), all.map(([name, value]) => ({ name: spaced(name), share: value / total, amount: count(value, "record"), part: percent(value / total, 0), paint: paint("bad") })), "none: every record has a label");
  byId("dead-latest").hidden = !total;
  keyed(byId("letters"), latest, ({ topic, partition, offset, at }) => `${topic}/${partition}/${offset} ${at}`, letter, (element, one) => set(element.querySelector("time"), ago((shown.at - one.at) / 1000)));
  set("replay", command ?? "");
  set("needs", needs.length ? `The command also reads ${needs.join(", ")} from the environment.` : "");
}

// Browsers give the clipboard to encrypted pages and this machine only; others copy a selection.
async function copy(source) {
  if (navigator.clipboard) return navigator.clipboard.writeText(source.textContent);
  getSelection().selectAllChildren(source);
  if (!document.execCommand("copy")) throw new Error("the browser refused");
}

byId("copy").addEventListener("click", async () => {
  const button = byId("copy");
  const done = await copy(byId("replay")).then(() => "Copied", () => "Press Ctrl+C");
  if (done !== "Copied") getSelection().selectAllChildren(byId("replay"));
  set(button, done);
  set("copied", done);
  setTimeout(() => set(button, "Copy"), 2000);
});
