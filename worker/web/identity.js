// The head of the page: which worker this is, and what it does now.

import { byId, keyed, make, pairs, set } from "/dom.js";
import { count, elapsed, first, spaced } from "/format.js";

const ALIVE = new Set(["starting", "warming", "running", "paused", "draining"]);

export const workers = ({ identity, worker }) => ({
  all: Math.max(identity?.processes ?? 1, worker.states.length, 1),
  alive: worker.states.filter((state) => ALIVE.has(state)).length,
  running: worker.states.filter((state) => state === "running" || state === "paused").length,
});

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
  const { all, alive } = workers(shown);
  return [
    ["Group", identity.group],
    ["Broker", [identity.cluster_name, first(identity.brokers, 1)].filter(Boolean).join(" at ")],
    ["Host", identity.host],
    ["Up", elapsed((at - identity.started_at) / 1000)],
    ["Delivery", spaced(identity.delivery)],
    ["Workers", alive && alive < all ? `${alive} of ${all}` : String(all)],
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
  const { rebalances, totals, worker } = shown;
  const { all, alive } = workers(shown);
  const missing = Array(Math.max(0, all - worker.states.length)).fill("not running");
  const states = [...worker.states, ...missing].map((state, n) => ({ n, state }));
  keyed(byId("workers"), states, ({ n, state }) => `${n} ${state}`, ({ state }) => {
    const item = make("li", state, "pill small");
    item.dataset.mood = state === "running" ? "good" : ALIVE.has(state) ? "wait" : "bad";
    return item;
  });
  pairs("group", [
    ["Rebalances: assigned, revoked, lost", ["assigned", "revoked", "lost"].map((kind) => rebalances[kind] ?? 0).join(" · ")],
    ["Repeated texts, not sent to the model", totals.cached.toLocaleString("en")],
    ["Texts truncated to the model's length", totals.truncated.toLocaleString("en")],
    ...(all > 1 || totals.restarts ? [["Processes restarted", String(totals.restarts)]] : []),
    ...(alive < all && alive ? [["Not running", count(all - alive, "worker")]] : []),
  ]);
}
