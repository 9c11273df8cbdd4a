// One chart over time, drawn with uPlot, which page.html loads first, with a legend of its own.

import { byId, keyed, make, set } from "/dom.js";
import { colour, paint } from "/colours.js";
import { clock } from "/format.js";
import { points } from "/points.js";

const together = uPlot.sync("page"); // one cursor for all charts
const STEPS = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200]; // seconds between labels

export class Chart {
  #plot = null;
  #key = "";

  // `columns` returns [{label, tone, texture, stroke, fill, dash, data, raw}], the topmost first.
  constructor(name, empty, format, columns) {
    this.element = byId(`chart-${name}`);
    this.legend = byId(`legend-${name}`);
    this.format = format;
    this.columns = columns;
    this.empty = this.element.appendChild(make("p", empty, "nothing quiet"));
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(this.element);
  }

  draw(now) {
    this.shown = this.columns();
    const times = points.column((point) => point.at / 1000);
    this.window = [now / 1000 - points.seconds, now / 1000];
    const key = JSON.stringify([this.shown.map(({ label, tone, texture }) => [label, tone, texture]), colour("line"), points.range]);
    if (key !== this.#key) this.#build();
    this.#key = key;
    this.#plot.setData([times, ...this.shown.map(({ data }) => data)]);
    this.empty.hidden = this.shown.some(({ data }) => data.some((value) => value > 0));
    this.#tell(this.#plot.cursor.idx);
    const values = this.shown.map((column) => `${column.label} ${this.#value(column)}`);
    this.element.setAttribute("aria-label", `now: ${values.join(", ")}`);
  }

  #value({ raw, data }, index = null) {
    const values = raw ?? data;
    return this.format(index === null ? values.findLast((value) => value !== null) : values[index]);
  }

  // The legend has the values under the cursor, else the newest ones.
  #tell(index = null) {
    const build = ({ label, tone, texture, line }) => {
      const item = make("li");
      const swatch = make("span", "", line ? "swatch line" : "swatch");
      paint(tone, texture)(swatch);
      item.append(swatch, make("bdi", label), make("b"));
      return item;
    };
    const at = index === null ? null : points.all[index]?.at;
    keyed(this.legend, this.shown, ({ label, tone, texture }) => `${label} ${tone} ${texture}`, build, (item, column) => set(item.lastChild, this.#value(column, at ? index : null)));
    this.legend.dataset.at = at ? clock(at, true) : "";
  }

  #size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight };
  }

  #build() {
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#options(), [[]], this.element);
  }

  #options() {
    const axis = { stroke: colour("quiet"), ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const grid = { stroke: colour("line"), width: 1 };
    const plain = (tick) => this.format(tick).replace(/\.0+(?= |$)/, "");
    const widest = (_, ticks) => 12 + 6.6 * Math.max(3, ...(ticks ?? []).map((tick) => tick.length));
    return {
      ...this.#size(),
      padding: [8, 28, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { size: 6 }, y: false, sync: { key: together.key } },
      legend: { show: false },
      hooks: { setCursor: [(plot) => this.shown && this.#tell(plot.cursor.idx)] },
      scales: {
        x: { range: () => this.window },
        y: { range: (_, __, highest) => [0, (highest || 1) * 1.1] },
      },
      axes: [
        { ...axis, grid: { show: false }, incrs: STEPS, space: 76, size: 26, gap: 8, values: (_, times, __, ___, step) => times.map((time) => clock(time * 1000, step < 60)) },
        { ...axis, grid, space: 30, gap: 6, size: widest, values: (_, ticks) => ticks.map(plain) },
      ],
      series: [
        {},
        ...this.shown.map(({ stroke, fill, dash, width = 1.5 }) => ({ stroke, fill, dash, width, points: { show: false }, spanGaps: false })),
      ],
    };
  }
}
