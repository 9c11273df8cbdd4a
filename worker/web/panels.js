// The panels of labels, lag, stages and batches.

import { bars, byId, keyed, make, pairs, set, stacked } from "/dom.js";
import { learn, paint, paintLabel } from "/colours.js";
import { count, duration, number, percent } from "/format.js";

const DENSE = 8; // labels; more are listed in two columns below one bar of 100 %

const others = ({ others: rest }) => (rest?.labels ? [{ name: count(rest.labels, "other"), value: rest.total, paint: paint("other") }] : []);

export function labels(shown) {
  const named = Object.entries(shown.labels).sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  const models = shown.each_model ?? [];
  learn([named.map(([name]) => name), ...models.map((model) => Object.keys(model.labels))]);
  for (const id of ["texts-of", "labels-of"]) set(id, models.length ? `of ${models[0].name}` : "");
  const all = [...named.map(([name, value]) => ({ name, value, paint: paintLabel(name) })), ...others(shown)];
  const total = all.reduce((sum, { value }) => sum + value, 0) || 1;
  const rows = all.map((row) => ({ ...row, share: row.value / total, amount: number(row.value), part: percent(row.value / total) }));
  const dense = rows.length > DENSE;
  const list = byId("labels");
  list.classList.toggle("dense", dense);
  // The batches go where there is room: a column without dead letters is short, a long list is not.
  const home = byId(dense || !shown.totals.dead_lettered ? "stack-lag" : "stack-labels");
  if (byId("batches-panel").parentElement !== home) home.append(byId("batches-panel"));
  list.style.setProperty("--rows", Math.ceil(rows.length / 2));
  byId("mix").hidden = !dense;
  stacked(byId("mix"), dense ? rows : []);
  bars(list, rows, "no text labelled yet");
}

export function drift(shown) {
  const told = shown.drift.map(({ of, index, reading }) => `${of} ${index.toFixed(2)}${reading && ` (${reading})`}`);
  set("drift", `drift: ${told.join(", ")}`);
  byId("drift").classList.toggle("alert", shown.drift.some(({ reading }) => reading === "shifted"));
}

export function partitions(shown) {
  const { partitions: all, left_out: more } = shown.lag;
  const highest = Math.max(0, ...all.map(({ records }) => records));
  set("lag-scale", highest ? `bars from 0 to ${count(highest, "record")}` : "");
  const rows = all.map(({ topic, partition, records }) => ({ name: `${topic} ${partition}`, share: records / (highest || 1), amount: count(records, "record"), paint: paint("accent") }));
  const rest = more ? [{ name: `and ${count(more, "partition")} with less lag`, empty: true }] : [];
  bars(byId("partitions"), [...rows, ...rest], "no partition assigned");
}

const shade = (n) => paint(`s${n}`);

function stageLine({ name }) {
  const line = make("tr");
  const head = make("th");
  head.scope = "row";
  head.append(make("span", "", "swatch"), name);
  line.append(head, make("td"), make("td"), make("td"));
  return line;
}

export function stages(shown) {
  const shares = shown.shares.stages;
  const list = shown.stages.map((stage, n) => ({ ...stage, n, share: stage.name in shares ? shares[stage.name] / 100 : null }));
  keyed(byId("stages").tBodies[0], list, ({ name }) => name, stageLine, (line, { n, seconds, busy, share }) => {
    shade(n)(line.querySelector(".swatch"));
    [percent(share), duration(seconds).join(" ").trim(), busy == null ? "" : percent(Math.min(1, busy), 0)].forEach((figure, cell) => set(line.cells[cell + 1], figure));
  });
  byId("shares").hidden = !Object.keys(shares).length;
  set("shares-of", `Shares of the ${shown.shares.of}; last 30 s of work.`);
  stacked(byId("shares"), list.filter(({ share }) => share !== null).map(({ name, share, n }) => ({ name, share, paint: shade(n) })));
}

export function batches(shown) {
  const { batches: mean } = shown;
  const closed = Object.entries(mean.closed_by).filter(([, value]) => value);
  pairs("batches", [
    ["Records per micro-batch", number(mean.records)],
    ["Tokens per forward pass", number(mean.tokens, 0)],
    ["Forward pass filled", percent(mean.tokens == null || !mean.tokens_at_most ? null : Math.min(1, mean.tokens / mean.tokens_at_most), 0)],
    ["Padding", percent(mean.padding)],
    ["Closed by", closed.map(([name, value]) => `${name} ${number(value)}`).join(", ") || "–"],
  ]);
}
