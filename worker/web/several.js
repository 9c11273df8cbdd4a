// Several models: each one's labels, what it gave no label and why, and its share of the time.

import { byId, keyed, make, set, stacked } from "/dom.js";
import { paint, paintLabel } from "/colours.js";
import { count, number, percent, spaced } from "/format.js";

const SHOWN = 5; // labels of a model; its bar has them all
const TONES = 5; // --s0 to --s4 in page.css

function build() {
  const element = make("div", "", "model");
  const head = make("div", "", "model-head");
  head.append(make("span", "", "swatch"), make("bdi", "", "strong"), make("span", "", "quiet"));
  const bar = make("div", "", "stacked thin");
  bar.setAttribute("aria-hidden", "true");
  element.append(head, make("small", "", "quiet"), bar, make("ul", "", "legend"), make("p", "", "quiet absent"));
  return element;
}

function labelled({ labels, others }) {
  const all = Object.entries(labels).map(([name, value]) => ({ name, value, paint: paintLabel(name) }));
  if (others.labels) all.push({ name: count(others.labels, "other"), value: others.total, paint: paint("other") });
  return all.sort((a, b) => b.value - a.value);
}

function mixed() {
  const item = make("li");
  item.append(make("span", "", "swatch"), make("bdi"), make("b"));
  return item;
}

function showMixed(item, { name, value, paint: painted }, total) {
  const [swatch, label, share] = item.children;
  painted(swatch);
  set(label, name);
  set(share, percent(value / total));
}

function update(element, model) {
  const [head, facts, bar, mix, absent] = element.children;
  const all = labelled(model);
  const total = all.reduce((sum, { value }) => sum + value, 0) || 1;
  paint(model.tone)(head.children[0]);
  head.children[0].hidden = !model.time;
  set(head.children[1], model.name);
  set(head.children[2], model.time == null ? "" : `${percent(model.time, 0)} of the models' time`);
  const { model: checkpoint, engine, dtype, device } = model.facts;
  set(facts, [checkpoint, engine, dtype, device, count(model.labelled, "record")].filter(Boolean).join(" · "));
  stacked(bar, all.map(({ name, value, paint: painted }) => ({ name, share: value / total, paint: painted })));
  const given = all.filter(({ value }) => value).slice(0, SHOWN);
  keyed(mix, given, ({ name }) => name, mixed, (item, label) => showMixed(item, label, total));
  const reasons = Object.entries(model.absent);
  absent.hidden = !reasons.length;
  set(absent, reasons.map(([reason, value]) => `${number(value)} without: ${spaced(reason)}`).join(" · "));
}

export function eachModel({ each_model: told = [] }) {
  const all = told.map((model, n) => ({ ...model, tone: `s${n % TONES}` }));
  byId("each-model-panel").hidden = !all.length;
  keyed(byId("each-model"), all, ({ name }) => name, build, update);
  byId("model-times").hidden = !all.some(({ time }) => time);
  stacked(byId("model-times"), all.map(({ name, time, tone }) => ({ name, share: time ?? 0, paint: paint(tone) })));
}
