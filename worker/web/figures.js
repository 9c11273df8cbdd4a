// The strip of key figures, and the sentence above it for a worker without records.

import { byId, set, setWithUnit } from "/dom.js";
import { ago, clock, count, duration, elapsed, first, NONE, number } from "/format.js";

const TRENDS = { growing: "the lag grows", steady: "the lag stays the same", shrinking: "the lag hardly shrinks" };
const WORRYING = 10; // seconds of work that a lag may grow to before the page is alarmed
const IDLE = 30; // seconds without a record until the page says so

const records = (id, value) => setWithUnit(id, number(value), value === 1 ? "record" : "records");

const age = ({ at, last_at: last }) => (last == null ? 0 : (at - last) / 1000);

// The quantiles are those of the seconds up to the last record, however long ago that was.
function showLatency(shown) {
  const { p50, p95, p99 } = shown.latency;
  setWithUnit("p99", ...duration(p99));
  set("latency-age", p99 != null && age(shown) > IDLE ? ago(age(shown)) : "");
  set("latency-note", p99 == null ? "record to result" : `p50 ${duration(p50).join(" ")} · p95 ${duration(p95).join(" ")}`);
}

function showUntil({ lag, totals }) {
  if (lag.records === null) return [NONE, "", "no partition assigned"];
  if (!lag.records) return [totals.consumed ? "caught up" : NONE, "", "no lag"];
  if (lag.until_zero_s != null) return [elapsed(lag.until_zero_s), "", "at the present rates"];
  return [NONE, "", TRENDS[lag.trend] ?? "not known yet"];
}

export function figures(shown) {
  const { totals, lag, rates } = shown;
  set("arriving", number(rates.arriving));
  set("consumed", number(totals.consumed));
  set("rate", number(rates.labelled));
  set("published", number(totals.published));
  records("lag", lag.records);
  const idle = age(shown) > IDLE ? ago(age(shown)) : `${duration(lag.seconds).join(" ")} old`;
  set("age", totals.consumed ? `last record ${idle}` : "no record yet");
  const [until, unit, note] = showUntil(shown);
  setWithUnit("until", until, unit);
  byId("until").classList.toggle("word", !/^\d/.test(until));
  set("until-note", note);
  byId("until-note").classList.toggle("alert", lag.trend === "growing" && lag.records > WORRYING * (rates.labelled || 0));
  showLatency(shown);
  records("dead", totals.dead_lettered);
  const pace = rates.dead_letters;
  set("dead-note", pace ? `${number(pace, pace < 10 ? 2 : 0)} a second now` : "since the start");
  byId("dead-note").classList.toggle("alert", pace > 0);
}

function waiting({ identity, lag }) {
  const from = identity.pattern ? `topics like ${identity.pattern}` : first(identity.inputs) || "the input topic";
  const partitions = count(lag.partitions.length + (lag.left_out ?? 0), "partition");
  if (!lag.partitions.length) return `No partition is assigned yet. The worker waits for its share of ${from}.`;
  return `Waiting for the first record of ${from}: ${partitions} assigned, no lag. A record that arrives now is shown within a second.`;
}

function idle(shown) {
  const { totals, run, lag } = shown;
  if (!run || age(shown) < IDLE || lag.records) return "";
  const since = `Idle for ${elapsed(age(shown))}: the last record was answered at ${clock(shown.last_at, true)}.`;
  const outcome = `${count(totals.published, "text")} labelled and ${count(totals.dead_lettered, "dead letter")} in ${elapsed(run.busy_s)} of work`;
  const pace = [run.labelled && `${number(run.labelled)} texts/s on average`, run.highest && `${number(run.highest)} at most`, run.latency.p99 != null && `p99 ${duration(run.latency.p99).join(" ")}`];
  return `${since} ${[outcome, ...pace.filter(Boolean)].join(", ")}.`;
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
