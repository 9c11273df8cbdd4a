// Figures, bars, tables and posts. Text from outside is set by textContent alone, never as HTML.

import { labelColour } from "/charts.js";
import { bytes, count, duration, number, percent, spaced } from "/format.js";

const byId = (id) => document.getElementById(id);

export function make(tag, text = "", name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function set(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function setWithUnit(id, value, unit) {
  set(id, value);
  byId(id).nextElementSibling.textContent = unit;
}

const setDuration = (id, seconds) => setWithUnit(id, ...duration(seconds));
const setRecords = (id, value) => setWithUnit(id, number(value), value === 1 ? "record" : "records");

function track(share, paint = "", side = "width") {
  const outer = make("div", "", "track");
  const inner = outer.appendChild(make("span"));
  inner.style[side] = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  if (paint) inner.style.background = `var(--${paint})`;
  outer.setAttribute("aria-hidden", "true");
  return outer;
}

export function bar(name, share, figure, paint) {
  const row = make("div", "", "bar");
  const label = make("bdi", name);
  label.title = name;
  row.append(label, track(share, paint), make("span", figure));
  return row;
}

function figures(shown) {
  const { totals, latency, lag } = shown;
  set("rate", number(shown.texts_per_second));
  set("published", number(totals.published));
  ["p50", "p95", "p99"].forEach((name) => setDuration(name, latency[name]));
  setRecords("lag", lag.records);
  set("age", totals.consumed ? duration(lag.seconds).join(" ") : "–");
  setRecords("inflight", totals.in_flight);
  set("inflight-bytes", bytes(totals.in_flight_bytes));
  setRecords("dead", totals.dead_lettered);
}

function rows(id, all, placeholder) {
  byId(id).replaceChildren(...(all.length ? all : [make("p", placeholder, "quiet")]));
}

function labels(shown) {
  const all = Object.entries(shown.labels);
  const total = shown.totals.published || 1;
  rows("labels", all.map(([name, value], n) => bar(name, value / total, `${number(value)} · ${percent(value / total)}`, labelColour(n))), "no text labelled yet");
}

function drift(shown) {
  const indices = shown.drift.map(({ of, index, reading }) => `${of} ${index.toFixed(2)}${reading && ` (${reading})`}`);
  set("drift", `drift: ${indices.join(", ")}`);
  byId("drift").classList.toggle("alert", shown.drift.some(({ reading }) => reading === "shifted"));
}

function confidence(shown) {
  const highest = Math.max(1, ...shown.confidence.map(([, , value]) => value));
  const total = shown.confidence.reduce((sum, [, , value]) => sum + value, 0) || 1;
  const columns = shown.confidence.map(([, bound, value]) => {
    const column = make("div");
    column.append(make("span", value ? percent(value / total, 0).replace(" %", "%") : ""), track(value / highest, "", "height"), make("span", `≤${bound}`.replace("0.", ".")));
    column.title = count(value, "text");
    return column;
  });
  byId("confidence").replaceChildren(...columns);
}

function stages(shown) {
  const longest = Math.max(1e-9, ...shown.stages.map((stage) => stage.seconds ?? 0));
  const lines = shown.stages.map((stage) => {
    const line = make("tr");
    const name = make("th", stage.name);
    name.scope = "row";
    const cell = make("td");
    cell.append(track((stage.seconds ?? 0) / longest));
    line.append(name, cell, make("td", duration(stage.seconds).join(" ")), make("td", percent(stage.busy, 0)));
    return line;
  });
  byId("stages").tBodies[0].replaceChildren(...lines);
}

function pairs(id, all) {
  byId(id).replaceChildren(...all.flatMap(([name, figure]) => [make("dt", name), make("dd", figure)]));
}

function batches(shown) {
  const { batches: mean } = shown;
  const closed = Object.entries(mean.closed_by).filter(([, value]) => value);
  pairs("batches", [
    ["Records per micro-batch", number(mean.records)],
    ["Tokens per forward pass", number(mean.tokens, 0)],
    ["Forward pass filled", percent(mean.tokens == null ? null : mean.tokens / mean.tokens_at_most, 0)],
    ["Padding", percent(mean.padding)],
    ["Micro-batches closed by", closed.map(([name, value]) => `${name} ${number(value)}`).join(", ") || "–"],
  ]);
}

function partitions(shown) {
  const { partitions: all, left_out: more } = shown.lag;
  const highest = Math.max(1, ...all.map(({ records }) => records));
  const lines = all.map(({ topic, partition, records }) => bar(`${topic} ${partition}`, records / highest, count(records, "record")));
  rows("partitions", more ? [...lines, make("p", `and ${count(more, "partition")} with less lag`, "quiet")] : lines, "no partition assigned");
}

function reasons(shown) {
  const all = Object.entries(shown.dead_letters.by_reason);
  const highest = Math.max(1, ...all.map(([, value]) => value));
  rows("reasons", all.map(([name, value]) => bar(spaced(name), value / highest, count(value, "record"), "bad")), "none");
}

function group(shown) {
  const { rebalances, totals, worker } = shown;
  pairs("group", [
    ["State", worker.states.join(", ") || "starting"],
    ["Rebalances: assigned · revoked · lost", ["assigned", "revoked", "lost"].map((kind) => number(rebalances[kind] ?? 0)).join(" · ")],
    ["Records polled", number(totals.consumed)],
    ["Repeated texts, not sent to the model", number(totals.cached)],
    ["Texts truncated to the model's length", number(totals.truncated)],
    ...(worker.states.length > 1 || totals.restarts ? [["Processes restarted", number(totals.restarts)]] : []),
  ]);
}

export function scores(all, known) {
  const list = make("div", "", "scores");
  list.append(...all.map(([name, share]) => bar(name, share, percent(share), known.includes(name) ? labelColour(known.indexOf(name)) : "")));
  return list;
}

function postItem(post, known) {
  const item = make("li");
  item.dataset.id = post.id;
  if (post.reason) {
    item.append(make("bdi", `dead letter: ${spaced(post.reason)}`, "dead"), make("small", post.id));
    return item;
  }
  const text = make("bdi", post.text ?? count(post.characters, "character"), post.text == null ? "quiet" : "");
  text.dir = "auto";
  const left = make("div");
  left.append(text);
  if (post.text != null && post.characters > 280) left.append(make("small", `the first 280 of ${number(post.characters)} characters`));
  item.append(left, scores(post.scores.slice(0, 2), known));
  return item;
}

let lastPosts = "";

function posts(shown) {
  const key = shown.posts.map(({ id }) => id).join("\n");
  if (key === lastPosts) return;
  lastPosts = key;
  const known = Object.keys(shown.labels);
  byId("posts").replaceChildren(...shown.posts.map((post) => postItem(post, known)));
  byId("no-posts").hidden = shown.posts.length > 0;
}

export function show(shown) {
  [figures, labels, drift, confidence, stages, batches, partitions, reasons, group, posts].forEach((part) => part(shown));
  const { model, version } = shown.worker;
  const facts = [model.model, model.engine && `${model.engine} engine`, model.dtype, model.device];
  set("model", facts.filter(Boolean).join(" · ") || "loading the model");
  set("version", version);
}
