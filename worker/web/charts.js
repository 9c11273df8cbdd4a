// The three charts: texts per second by label, latency, lag.

import { Chart } from "/chart.js";
import { colour, fill, texture, tone } from "/colours.js";
import { count, duration, number } from "/format.js";
import { points } from "/points.js";

let known = 0; // labels of the model that were given so far

// Each area is drawn as the sum of itself and those below it.
function areas() {
  const names = [...new Set(points.all.flatMap((point) => Object.keys(point.labels ?? {})))].sort();
  const rows = names.map((name) => ({ label: name, tone: tone(name), texture: texture(name), raw: points.column((point) => (point.labels ? (point.labels[name] ?? 0) : null)) }));
  const more = known - names.length;
  if (more > 0) rows.unshift({ label: count(more, "other"), tone: "other", texture: 0, raw: points.column((point) => point.others) });
  let below = rows[0]?.raw.map(() => 0);
  for (const row of rows) {
    below = row.data = row.raw.map((value, n) => (value === null ? null : value + (below[n] ?? 0)));
  }
  return rows.reverse().map((row) => ({ ...row, stroke: colour(row.tone), width: 1, fill: (plot) => fill(plot.ctx, row.tone, row.texture) }));
}

function texts() {
  const rows = areas();
  const data = points.column((point) => point.labelled);
  const labelled = rows.length ? rows : [{ label: "labelled", tone: "accent", stroke: colour("accent"), data }];
  const arriving = points.column((point) => point.arriving);
  if (arriving.every((value) => value === null)) return labelled;
  return [...labelled, { label: "arriving", tone: "ink", line: true, stroke: colour("ink"), dash: [5, 4], data: arriving }];
}

const latencies = () =>
  [["p99", "high"], ["p95", "mid"], ["p50", "low"]].map(([name, shade]) => ({ label: name, tone: shade, line: true, stroke: colour(shade), data: points.column((point) => point.latency?.[name]) }));

const lag = () => [{ label: "records", tone: "accent", stroke: colour("accent"), fill: (plot) => fill(plot.ctx, "accent"), data: points.column((point) => point.lag) }];

const charts = [
  new Chart("texts", "no text in this range", (value) => number(value), texts),
  new Chart("latency", "no record in this range", (value) => duration(value).join(" ").trim(), latencies),
  new Chart("lag", "no lag in this range", (value) => number(value), lag),
];

export function draw(shown) {
  known = Object.keys(shown.labels).length + (shown.others?.labels ?? 0);
  charts.forEach((chart) => chart.draw(shown.at));
}
