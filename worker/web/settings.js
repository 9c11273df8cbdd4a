// The settings in force, those that were changed first, and their filter.

import { byId, keyed, make, set } from "/dom.js";
import { number } from "/format.js";

const filter = byId("filter");
const changed = byId("changed");
const DEFAULT = "default";
let all = [];
let told = "";

function value(shown) {
  if (shown === null || shown === "") return "not set";
  if (Array.isArray(shown)) return shown.map(value).join(", ") || "not set";
  if (typeof shown === "object") return Object.entries(shown).map(([name, one]) => `${name}=${value(one)}`).join(", ") || "not set";
  return String(shown);
}

function line({ name, value: shown, origin }) {
  const row = make("tr", "", origin === DEFAULT ? "" : "changed");
  const head = make("th", name);
  head.scope = "row";
  row.append(head, make("td", value(shown), "value"), make("td", origin, "origin"));
  return row;
}

const matches = (words) => (setting) => {
  const text = `${setting.name} ${value(setting.value)} ${setting.origin}`.toLowerCase();
  return words.every((word) => text.includes(word));
};

function render() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = all.filter(({ origin }) => !changed.checked || origin !== DEFAULT).filter(matches(words));
  keyed(byId("settings").tBodies[0], found, (setting) => JSON.stringify(setting), line);
  set("settings-count", all.length ? `${number(found.length)} of ${number(all.length)}` : "");
}

export function settings({ settings: shown = [] }) {
  if (JSON.stringify(shown) === told) return;
  told = JSON.stringify(shown);
  all = shown.toSorted((a, b) => (a.origin === DEFAULT) - (b.origin === DEFAULT));
  render();
}

filter.addEventListener("input", render);
changed.addEventListener("change", render);
