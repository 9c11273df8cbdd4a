// The strip of key figures, and the sentence above it for a worker without records.

import { byId, set, setWithUnit } from "/dom.js";
import { ago, clock, count, duration, elapsed, first, number } from "/format.js";
import { points, rate } from "/points.js";

const IDLE = 30; // seconds without a record until the page says so

const records = (id, value) => setWithUnit(id, number(value), value === 1 ? "record" : "records");

// Without traffic there is no latency now: the last one known is shown with its age.
function latency(shown) {
  const now = shown.latency;
  if (now.p99 != null && now.at == null) return { ...now, age: 0 };
  if (now.p99 != null) return { ...now, age: (shown.at - now.at) / 1000 };
  const last = points.all.findLast((point) => point.latency?.p99 != null);
  return last ? { ...last.latency, age: (shown.at - last.at) / 1000 } : { age: 0 };
}

function showLatency(shown) {
  const { p50, p95, p99, age } = latency(shown);
  setWithUnit("p99", ...duration(p99));
  set("latency-age", p99 != null && age > IDLE ? ago(age) : "");
  set("latency-note", p99 == null ? "record to result" : `p50 ${duration(p50).join(" ")} · p95 ${duration(p95).join(" ")}`);
}

function showUntil({ lag, totals }) {
  const known = lag.until_zero_s != null;
  if (!lag.records) return [totals.consumed ? "caught up" : "–", "", "no lag"];
  if (known) return [elapsed(lag.until_zero_s), "", "at the present rates"];
  const why = { grows: "the lag grows", idle: "nothing is labelled" }[lag.until_zero_why];
  return ["–", "", why ?? "the lag does not shrink"];
}

export function figures(shown) {
  const { totals, lag, rates = {}, dead_letters: dead } = shown;
  set("arriving", number(rates.arriving));
  set("consumed", number(totals.consumed));
  set("rate", number(rates.labelled ?? shown.texts_per_second));
  set("published", number(totals.published));
  records("lag", lag.records);
  set("age", totals.consumed ? `last record ${duration(lag.seconds).join(" ")} old` : "no record yet");
  const [until, unit, note] = showUntil(shown);
  setWithUnit("until", until, unit);
  byId("until").classList.toggle("word", !/^\d/.test(until));
  set("until-note", note);
  byId("until-note").classList.toggle("alert", lag.records > 0 && lag.until_zero_why === "grows");
  showLatency(shown);
  records("dead", totals.dead_lettered);
  const pace = dead?.rate ?? rates.dead_letters;
  set("dead-note", pace ? `${number(pace, pace < 10 ? 2 : 0)} a second now` : "since the start");
  byId("dead-note").classList.toggle("alert", pace > 0);
}

function lastActive(shown) {
  return shown.last_at ?? points.all.findLast((point) => rate(point) > 0 || point.dead_letters > 0)?.at;
}

function waiting({ identity, lag }) {
  const from = identity ? first(identity.inputs) : "the input topic";
  const partitions = count(lag.partitions.length + (lag.left_out ?? 0), "partition");
  if (!lag.partitions.length) return `No partition is assigned yet. The worker waits for its share of ${from}.`;
  return `Waiting for the first record of ${from}: ${partitions} assigned, no lag. A record that arrives now is shown within a second.`;
}

function idle(shown) {
  const at = lastActive(shown);
  const { totals } = shown;
  const quiet = !shown.rates?.arriving && !(shown.rates?.labelled ?? shown.texts_per_second);
  if (!quiet || !at || (shown.at - at) / 1000 < IDLE || shown.lag.records) return "";
  const peak = Math.max(0, ...points.all.map((point) => rate(point) ?? 0));
  const { p99 } = latency(shown);
  const outcome = `${count(totals.published, "text")} labelled and ${count(totals.dead_lettered, "dead letter")} since the start`;
  const pace = [peak && `at most ${number(peak)} texts/s`, p99 != null && `p99 ${duration(p99).join(" ")} at the end`].filter(Boolean).join(", ");
  return `Idle for ${elapsed((shown.at - at) / 1000)}: the last record came at ${clock(at, true)}. ${outcome}${pace && `; ${pace}`}.`;
}

export function story(shown) {
  const { worker, totals, lag } = shown;
  const loaded = worker.live && worker.ready;
  const none = !totals.consumed && !totals.published && !lag.records;
  document.body.classList.toggle("waiting", none);
  const text = !loaded ? "" : none ? waiting(shown) : idle(shown);
  set("story", text);
  byId("story").hidden = !text;
}
