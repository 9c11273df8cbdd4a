// The head of the page: which worker this is, and what it does now.

import { byId, keyed, make, pairs, set } from "/dom.js";
import { elapsed, first, spaced } from "/format.js";

// One entry for each process; a worker that runs alone tells of itself by its state.
function processes({ worker, workers: slots }) {
  if (slots.length) return slots.map(({ slot, live, ready, reason }) => ({ name: `${slot} · ${reason}`, running: live && ready, mood: !live ? "bad" : ready ? "good" : "wait" }));
  return worker.states.map((state) => ({ name: state, running: state === "running", mood: !worker.live ? "bad" : state === "running" ? "good" : "wait" }));
}

export function workers(shown) {
  const all = processes(shown);
  return { all: Math.max(1, all.length), running: all.filter(({ running }) => running).length };
}

const inputs = ({ inputs: names, pattern }) => (pattern ? `topics like ${pattern}` : first(names));

export const title = ({ identity }) => (identity ? `${inputs(identity)} – streamlabel` : "streamlabel");

function topics({ identity }) {
  if (!identity) return;
  const arrow = make("span", "→", "arrow");
  arrow.setAttribute("aria-label", "to");
  arrow.setAttribute("role", "img");
  const key = JSON.stringify([identity.inputs, identity.pattern, identity.output]);
  const head = byId("topics");
  if (head.dataset.key === key) return;
  head.dataset.key = key;
  head.replaceChildren(make("bdi", inputs(identity)), arrow, make("bdi", identity.output));
  head.title = `${identity.inputs.join(", ")} → ${identity.output}`;
}

function facts(shown) {
  const { identity, at } = shown;
  if (!identity) return [];
  const { all, running } = workers(shown);
  return [
    ["Group", identity.group],
    ["Broker", [identity.cluster_name, first(identity.brokers, 1)].filter(Boolean).join(" at ")],
    ["Host", identity.host],
    ["Up", elapsed((at - identity.started_at) / 1000)],
    ["Delivery", spaced(identity.delivery)],
    ["Workers", running < all && all > 1 ? `${running} of ${all}` : String(all)],
  ];
}

function engine({ worker }) {
  const { model } = worker;
  const revision = model.revision && model.revision !== "none" && `revision ${model.revision.slice(0, 12)}`;
  return [model.model, revision, model.engine && `${model.engine} engine`, model.dtype, model.device].filter(Boolean).join(" · ");
}

function link([name, address]) {
  const item = make("a", name);
  item.href = address;
  item.rel = "noreferrer";
  return item;
}

function links({ links: known = {} }) {
  const all = [["Documentation", known.docs], ["Board", known.board]].filter(([, address]) => /^https?:/.test(address ?? ""));
  keyed(byId("links"), all, ([name, address]) => `${name} ${address}`, link);
}

export function identity(shown) {
  topics(shown);
  pairs("identity", facts(shown));
  set("model", engine(shown) || "loading the model");
  set("version", shown.worker.version);
  links(shown);
}

export function group(shown) {
  const { rebalances, totals } = shown;
  const all = processes(shown);
  keyed(byId("workers"), all, ({ name }) => name, ({ name }) => make("li", name, "pill small"), (item, { mood }) => {
    item.dataset.mood = mood;
  });
  pairs("group", [
    ["Records in flight", totals.in_flight.toLocaleString("en"), "inflight"],
    ["Rebalances: assigned, revoked, lost", ["assigned", "revoked", "lost"].map((kind) => rebalances[kind] ?? 0).join(" · ")],
    ["Repeated texts, not sent to the model", totals.cached.toLocaleString("en")],
    ["Texts truncated to the model's length", totals.truncated.toLocaleString("en")],
    ...(all.length > 1 || totals.restarts ? [["Processes restarted", String(totals.restarts)]] : []),
  ]);
}
