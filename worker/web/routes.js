// The routes: how many results went which way, the copies, and the records that were filtered.

import { bars, byId, set } from "/dom.js";
import { paint } from "/colours.js";
import { count, number, percent, spaced } from "/format.js";

function rows(counts, colour, total) {
  const all = Object.entries(counts).sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  return all.map(([name, value]) => ({ name: spaced(name), share: value / total, amount: number(value), part: percent(value / total), paint: paint(colour) }));
}

const sum = (counts) => Object.values(counts).reduce((all, value) => all + value, 0);

const group = (id, counts, colour, total, placeholder) => bars(byId(id), rows(counts, colour, total), placeholder);

export function routes({ routes: shown }) {
  byId("routes-panel").hidden = !shown;
  if (!shown) return;
  const all = sum(shown.main) + sum(shown.filtered);
  group("routes", all ? shown.main : {}, "accent", all, "no result routed yet");
  for (const [name, colour] of [["copies", "s2"], ["filtered", "other"]]) {
    const some = sum(shown[name]) > 0;
    byId(`${name}-head`).hidden = !some;
    group(name, some ? shown[name] : {}, colour, all || 1);
  }
  const told = [
    shown.lost && `${number(shown.lost)} ${shown.lost === 1 ? "copy" : "copies"} lost: each is a dead letter`,
    shown.path_missing && `${count(shown.path_missing, "condition")} on a field that a record lacked`,
  ];
  set("routes-note", told.filter(Boolean).join(" · "));
  byId("routes-note").classList.toggle("alert", shown.lost > 0);
}
