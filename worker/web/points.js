// The points of the charts: one range, from GET /history. The shortest range also grows by itself.

const RANGES = { "5m": 300, "1h": 3600, "24h": 86400 }; // seconds

class Points {
  range = "5m";
  all = [];
  #step = 1;
  #asked = 0;

  get seconds() {
    return RANGES[this.range];
  }

  // Fetches a range, or the present one if it has new points since the last time.
  async load(range = this.range) {
    const number = ++this.#asked;
    const response = await fetch(`/history?range=${range}`);
    if (!response.ok) throw new Error((await response.text()).trim());
    const { step_s: step, points } = await response.json();
    if (number !== this.#asked) return; // a later question is on its way
    this.range = range;
    this.#step = step;
    this.all = [];
    points.forEach((point) => this.#append(point));
  }

  async refresh(at) {
    const due = this.range !== "5m" && at - (this.all.at(-1)?.at ?? 0) >= this.#step * 2000;
    if (due) await this.load();
  }

  add(point) {
    if (this.range === "5m") this.#append(point);
    const oldest = point.at - this.seconds * 1000;
    while (this.all.length && this.all[0].at < oldest) this.all.shift();
  }

  // A point without values parts lines that must not be connected.
  #append(point) {
    const last = this.all.at(-1);
    const step = this.#step * 1000;
    if (last && point.at <= last.at) return;
    if (last && point.at - last.at > 3 * step) this.all.push({ at: last.at + step });
    this.all.push(point);
  }

  column(of) {
    return this.all.map((point) => of(point) ?? null);
  }
}

export const points = new Points();
export const known = (range) => range in RANGES;
export const active = ({ all }) => all.some((point) => point.labelled > 0 || point.dead_letters > 0);
