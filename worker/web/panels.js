// What is no chart: figures, bars, tables, posts. Foreign words go in by textContent, and never else.

import { labelColour } from "/charts.js";
import { bytes, count, duration, number, percent, plain } from "/words.js";

const at = (id) => document.getElementById(id);

export function make(tag, text = "", name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function set(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

function setDuration(id, seconds) {
  const [value, unit] = duration(seconds);
  set(id, value);
  const beside = at(id).nextElementSibling;
  if (beside) beside.textContent = unit;
}

function track(share, paint = "", side = "width") {
  const outer = make("div", "", "track");
  const inner = outer.appendChild(make("span"));
  inner.style[side] = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  if (paint) inner.style.background = `var(--${paint})`;
  outer.setAttribute("aria-hidden", "true");
  return outer;
}

export function bar(name, share, words, paint) {
  const row = make("div", "", "bar");
  const label = make("bdi", name);
  label.title = name;
  row.append(label, track(share, paint), make("span", words));
  return row;
}

function figures(shown) {
  const { totals, latency, lag } = shown;
  set("rate", number(shown.texts_per_second));
  set("published", number(totals.published));
  ["p50", "p95", "p99"].forEach((name) => setDuration(name, latency[name]));
  set("lag", number(lag.records));
  set("age", totals.consumed ? duration(lag.seconds).join(" ") : "–");
  set("inflight", number(totals.in_flight));
  set("inflight-bytes", bytes(totals.in_flight_bytes));
  set("dead", number(totals.dead_lettered));
}

function rows(id, all, none) {
  at(id).replaceChildren(...(all.length ? all : [make("p", none, "quiet")]));
}

function labels(shown) {
  const all = Object.entries(shown.labels);
  const whole = shown.totals.published || 1;
  const paint = (n) => labelColour(n);
  rows("labels", all.map(([name, value], n) => bar(name, value / whole, `${number(value)} · ${percent(value / whole)}`, paint(n))), "no text labelled yet");
}

function drift(shown) {
  const told = shown.drift.map((one) => `${one.of} ${one.index.toFixed(2)}${one.reading && ` (${one.reading})`}`);
  set("drift", `drift: ${told.join(", ")}`);
  at("drift").classList.toggle("alert", shown.drift.some((one) => one.reading === "shifted"));
}

function confidence(shown) {
  const most = Math.max(1, ...shown.confidence.map(([, value]) => value));
  const whole = shown.confidence.reduce((sum, [, value]) => sum + value, 0) || 1;
  const columns = shown.confidence.map(([bound, value]) => {
    const column = make("div");
    column.append(make("span", value ? percent(value / whole, 0).replace(" %", "%") : ""), track(value / most, "", "height"), make("span", `≤${bound}`.replace("0.", ".")));
    column.title = count(value, "text");
    return column;
  });
  at("confidence").replaceChildren(...columns);
}

function stages(shown) {
  const most = Math.max(1e-9, ...shown.stages.map((one) => one.seconds ?? 0));
  const lines = shown.stages.map((one) => {
    const line = make("tr");
    const name = make("th", one.name);
    name.scope = "row";
    const cell = make("td");
    cell.append(track((one.seconds ?? 0) / most));
    line.append(name, cell, make("td", duration(one.seconds).join(" ")), make("td", percent(one.busy, 0)));
    return line;
  });
  at("stages").tBodies[0].replaceChildren(...lines);
}

function pairs(id, all) {
  at(id).replaceChildren(...all.flatMap(([name, words]) => [make("dt", name), make("dd", words)]));
}

function batches(shown) {
  const { batches: mean } = shown;
  const closed = Object.entries(mean.closed_by).filter(([, value]) => value);
  pairs("batches", [
    ["Records in a micro-batch", number(mean.records)],
    ["Tokens in a forward pass", number(mean.tokens, 0)],
    ["Filled, of the most that a pass takes", percent(mean.tokens == null ? null : mean.tokens / mean.tokens_at_most, 0)],
    ["Padding", percent(mean.padding)],
    ["Closed by", closed.map(([name, value]) => `${name} ${number(value)}`).join(", ") || "–"],
  ]);
}

function partitions(shown) {
  const { partitions: all, left_out: more } = shown.lag;
  const most = Math.max(1, ...all.map((one) => one.records));
  const lines = all.map((one) => bar(`${one.topic} ${one.partition}`, one.records / most, count(one.records, "record")));
  rows("partitions", more ? [...lines, make("p", `and ${number(more)} with less`, "quiet")] : lines, "no partition assigned");
}

function reasons(shown) {
  const all = Object.entries(shown.dead_letters);
  const most = Math.max(1, ...all.map(([, value]) => value));
  rows("reasons", all.map(([name, value]) => bar(plain(name), value / most, count(value, "record"), "bad")), "every record could be labelled");
}

function group(shown) {
  const { rebalances, totals, worker } = shown;
  pairs("group", [
    ["State", worker.states.join(", ") || "starting"],
    ["Partitions assigned, revoked, lost", ["assigned", "revoked", "lost"].map((kind) => number(rebalances[kind] ?? 0)).join(" · ")],
    ["Records polled", number(totals.consumed)],
    ["Answered from the cache", count(totals.cached, "text")],
    ["Cut to the model's length", count(totals.truncated, "text")],
    ...(worker.states.length > 1 || totals.restarts ? [["Processes started again", number(totals.restarts)]] : []),
  ]);
}

export function scores(all, known) {
  const box = make("div", "", "scores");
  box.append(...all.map(([name, share]) => bar(name, share, percent(share), known.includes(name) ? labelColour(known.indexOf(name)) : "")));
  return box;
}

function post(one, known) {
  const item = make("li");
  item.dataset.id = one.id;
  if (one.reason) {
    item.append(make("bdi", `dead letter: ${plain(one.reason)}`, "dead"), make("small", one.id));
    return item;
  }
  const words = make("bdi", one.text ?? `${number(one.characters)} characters`, one.text == null ? "quiet" : "");
  words.dir = "auto";
  const left = make("div");
  left.append(words);
  if (one.text != null && one.characters > 280) left.append(make("small", `the first 280 of ${number(one.characters)} characters`));
  item.append(left, scores(one.scores.slice(0, 2), known));
  return item;
}

let lastPosts = "";

function posts(shown) {
  const key = shown.posts.map((one) => one.id).join("\n");
  if (key === lastPosts) return;
  lastPosts = key;
  const known = Object.keys(shown.labels);
  at("posts").replaceChildren(...shown.posts.map((one) => post(one, known)));
  at("no-posts").hidden = shown.posts.length > 0;
}

export function show(shown) {
  [figures, labels, drift, confidence, stages, batches, partitions, reasons, group, posts].forEach((part) => part(shown));
  const { model, version } = shown.worker;
  const facts = [model.model, model.engine && `${model.engine} engine`, model.dtype, model.device];
  set("model", facts.filter(Boolean).join(" · ") || "loading the model");
  set("version", version);
}
