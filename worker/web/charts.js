// The charts over time. Owns their points; draws with uPlot, which page.html loads first.

import { duration, number } from "/format.js";

const KEPT = 300;
const GAP = 3000; // ms; points further apart are not connected
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const labelColour = (index) => `c${(index % 8) + 1}`;

// Opaque, because areas lie on top of one another.
const softened = (name) => `color-mix(in srgb, ${colour(name)} 42%, ${colour("card")})`;

class Points {
  #points = [];

  replace(points) {
    this.#points = [];
    points.forEach((point) => this.add(point));
  }

  add(point) {
    const last = this.#points.at(-1);
    if (last && point.at <= last.at) return;
    if (last && point.at - last.at > GAP) this.#points.push({ at: last.at + 1000 });
    this.#points.push(point);
    this.#points.splice(0, this.#points.length - KEPT);
  }

  column(of) {
    return this.#points.map((point) => of(point) ?? null);
  }
}

export const points = new Points();

class Chart {
  #plot = null;
  #key = "";

  constructor(id, format, columns) {
    this.element = document.getElementById(id);
    this.format = format;
    this.columns = columns;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(this.element);
  }

  draw() {
    const columns = this.columns();
    const key = JSON.stringify([columns.map((column) => [column.label, column.stroke]), colour("line")]);
    if (key !== this.#key) {
      this.#plot?.destroy();
      this.#plot = new uPlot(this.#options(columns), [[]], this.element);
      this.#key = key;
    }
    this.raw = columns.map((column) => column.raw ?? column.data);
    const times = points.column((point) => point.at / 1000);
    this.#plot.setData([times, ...columns.map((column) => column.data)]);
    const values = columns.map((column, n) => `${column.label} ${this.format(this.raw[n].at(-1))}`);
    this.element.setAttribute("aria-label", `now: ${values.join(", ")}`);
  }

  #size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight - 26 };
  }

  #options(columns) {
    const axis = { stroke: colour("quiet"), ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const grid = { stroke: colour("line"), width: 1 };
    const value = (_, __, series, index) => {
      const raw = this.raw?.[series - 1] ?? [];
      return this.format(index == null ? raw.at(-1) : raw[index]);
    };
    return {
      ...this.#size(),
      padding: [8, 6, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { size: 6 } },
      legend: { live: true },
      scales: { y: { range: (_, __, highest) => [0, Math.max(highest || 0, 1e-3) * 1.1] } },
      axes: [
        { ...axis, grid: { show: false }, space: 90, size: 26, values: (_, times) => times.map((t) => clock.format(t * 1000)) },
        { ...axis, grid, space: 36, size: 58, values: (_, ticks) => ticks.map((tick) => this.format(tick).replace(/\.0+(?= |$)/, "")) },
      ],
      series: [
        { label: "Time", value: () => "", class: "hidden" },
        ...columns.map((column) => ({ label: column.label, stroke: column.stroke, fill: column.fill, width: 1.5, value, points: { show: false }, spanGaps: false })),
      ],
    };
  }
}

// Stacked: each series is drawn as the sum of itself and those below it, the topmost first.
function textsByLabel() {
  const labels = [...new Set(points.column((point) => Object.keys(point.labels ?? {})).flat())].sort();
  const rows = labels.map((label) => points.column((point) => point.labels?.[label]));
  if (!rows.length) {
    const rates = points.column((point) => point.texts_per_second);
    return [{ label: "texts", stroke: colour("c1"), data: rates }];
  }
  const sums = rows.map((_, n) => rows[n].map((__, i) => (rows[n][i] === null ? null : rows.slice(0, n + 1).reduce((sum, row) => sum + row[i], 0))));
  return labels
    .map((label, n) => ({ label, stroke: colour(labelColour(n)), fill: softened(labelColour(n)), data: sums[n], raw: rows[n] }))
    .reverse();
}

const latencies = () =>
  [["p99", "high"], ["p95", "mid"], ["p50", "low"]].map(([name, shade]) => ({ label: name, stroke: colour(shade), data: points.column((point) => point.latency?.[name]) }));

const lag = () => [{ label: "records", stroke: colour("c1"), fill: softened("c1"), data: points.column((point) => point.lag) }];

const charts = [
  new Chart("chart-texts", (value) => number(value), textsByLabel),
  new Chart("chart-latency", (value) => duration(value).join(" "), latencies),
  new Chart("chart-lag", (value) => number(value, 0), lag),
];

export const draw = () => charts.forEach((chart) => chart.draw());
