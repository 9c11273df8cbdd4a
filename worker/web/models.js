// The models that labelled, newest first, and the shadow model beside the one in use.

import { bars, byId, keyed, make, pairs, set } from "/dom.js";
import { paint } from "/colours.js";
import { count, date, duration, NONE, number, percent } from "/format.js";

function offsets(all) {
  const element = make("details");
  element.append(make("summary", `first offsets in ${count(all.length, "partition")}`));
  const list = make("dl", "", "pairs");
  for (const [partition, offset] of all) {
    const row = make("div");
    row.append(make("dt", partition), make("dd", number(offset)));
    list.append(row);
  }
  element.append(list);
  return element;
}

function model({ name, revision, weights_sha256: weights, since, first_offsets: first }) {
  const element = make("div", "", "model");
  const facts = [revision && revision !== "none" && `revision ${revision.slice(0, 12)}`, weights && `weights ${weights.slice(0, 12)}`, since && `since ${date(since)}`];
  element.append(make("bdi", name, "strong"), make("small", facts.filter(Boolean).join(" · ")));
  const all = Object.entries(first ?? {});
  if (all.length) element.append(offsets(all));
  element.title = weights ? `sha256 ${weights}` : "";
  return element;
}

export function models({ models: all = [] }) {
  const newest = [...(all ?? [])].sort((a, b) => (b.since ?? 0) - (a.since ?? 0));
  keyed(byId("models"), newest.length ? newest : [null], (one) => JSON.stringify(one), (one) => (one ? model(one) : make("p", "none has labelled a record yet", "quiet")));
}

const ms = (value) => duration(value / 1000).join(" ");
const bits = (value) => value.toFixed(3);

export function shadow({ shadow: shown }) {
  byId("shadow-panel").hidden = !shown;
  if (!shown) return;
  set("shadow-name", shown.model ?? "");
  set("agreement", shown.texts ? percent(shown.agreement) : "–");
  const [low, high] = shown.interval ?? [];
  const range = low == null ? "" : `, 95 % interval ${percent(low)} to ${percent(high)}`;
  const failed = shown.state === "failed";
  byId("agreement-note").classList.toggle("alert", failed);
  set("agreement-note", failed ? "it failed: the log has the reason" : shown.texts ? `agreement over ${count(shown.texts, "text")}` : shown.state);
  set("interval", shown.texts ? `${count(shown.texts - (shown.agreed ?? 0), "text")} with another label${range}` : "");
  const flips = [...(shown.flips ?? [])].sort((a, b) => b.number - a.number);
  const rows = flips.map(({ from, to, number: times }) => ({ name: `${from} → ${to}`, share: times / (shown.texts || 1), amount: number(times), part: percent(times / (shown.texts || 1)), paint: paint("accent") }));
  bars(byId("flips"), rows, shown.texts ? "no text changed its label" : "");
  pairs("shadow", [
    ["Compared with", shown.against ?? NONE],
    ["Share of the texts", percent(shown.share, 0)],
    ["Divergence, mean and p99", shown.divergence ? `${bits(shown.divergence.mean)} · ${bits(shown.divergence.p99)} bits` : NONE],
    ["Time a text, shadow and model", shown.latency ? `${ms(shown.latency.shadow_ms)} · ${ms(shown.latency.model_ms)}` : NONE],
    ["Skipped: it was busy", count(shown.behind ?? 0, "text")],
  ]);
}
