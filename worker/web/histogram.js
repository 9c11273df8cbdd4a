// The histogram of confidences: a bar is as wide as its bucket, and its area is its share of the texts.

import { byId, keyed, make, set, within } from "/dom.js";
import { count, number, percent } from "/format.js";

const UNIT = 0.01; // of probability: the density is the share of the texts per unit
const CERTAIN = 0.95;

// Tenths, every second one where there are many.
const ticks = (low) => Array.from({ length: 11 }, (_, n) => n / 10).filter((tick) => tick >= low - 1e-9 && (low >= 0.5 || Math.round(tick * 10) % 2 === 0));
const step = (highest) => [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].find((size) => highest / size <= 4) ?? 1;

function axis(parent, values, side, text) {
  const mark = (value) => make("span", text(value), "tick");
  keyed(parent, values, (value) => text(value), mark, (element, value) => {
    element.style[side] = value.place;
  });
}

function frame(parent) {
  if (parent.children.length) return;
  for (const name of ["levels", "columns", "bounds"]) parent.append(make("div", "", name));
}

function shape(buckets) {
  const total = buckets.reduce((sum, [, , value]) => sum + value, 0);
  const filled = buckets.filter(([, , value]) => value);
  const low = filled.length ? Math.floor(filled[0][0] * 10 + 1e-9) / 10 : 0;
  const bars = filled.map(([from, to, value]) => ({ from, to, value, share: value / total, density: (value / total / (to - from)) * UNIT }));
  return { total, low, bars, highest: Math.max(0, ...bars.map(({ density }) => density)) };
}

function note({ total, bars }) {
  if (!total) return "no text labelled yet";
  const certain = bars.filter(({ from }) => from >= CERTAIN - 1e-9).reduce((sum, { share }) => sum + share, 0);
  return `${percent(certain)} of the labels have a probability above ${CERTAIN}. ${count(total, "text")} since the start.`;
}

export function confidence(shown) {
  const found = shape(shown.confidence);
  const { low, bars, highest } = found;
  const parent = byId("confidence");
  frame(parent);
  parent.hidden = !found.total;
  const [levels, columns, bounds] = parent.children;
  const at = (value) => within((value - low) / (1 - low));
  const size = step(highest);
  const top = Math.max(size, Math.ceil(highest / size - 1e-9) * size);
  const rows = highest ? Array.from({ length: Math.round(top / size) + 1 }, (_, n) => n * size) : [];
  axis(levels, rows.map((value) => ({ value, place: within(value / top) })), "bottom", ({ value }) => percent(value, 0));
  axis(bounds, ticks(low).map((value) => ({ value, place: at(value) })), "left", ({ value }) => number(value, 1));
  keyed(columns, bars, ({ from }) => from, () => make("span"), (column, { from, to, value, share, density }) => {
    Object.assign(column.style, { left: at(from), width: within((to - from) / (1 - low)), height: within(density / top) });
    column.title = `${from} to ${to}: ${count(value, "text")}, ${percent(share)}`;
  });
  const told = bars.map(({ from, to, share }) => `${from} to ${to}: ${percent(share)}`).join(", ");
  parent.setAttribute("aria-label", told || "no text labelled yet");
  set("confidence-note", note(found));
}
