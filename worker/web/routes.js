// The routes: how many results went which way, the copies, and the records that were filtered.

import { bars, byId, set } from "/dom.js";
import { paint } from "/colours.js";
import { count, number, percent, spaced } from "/format.js";

function rows(counts, colour, total) {
  const all = Object.entries(counts).sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  return all.map(([name, value]) => ({ name: spaced(name), share: value / total, amount: number(value), part: percent(value / total), paint: paint(colour) }));
}

const sum = (counts) => Object.values(counts).reduce((all, value) => all + value, 0);

export function routes({ routes: shown }) {
  byId("routes-panel").hidden = !shown;
  if (!shown) return;
  const total = sum(shown.main) + sum(shown.filtered) || 1;
  bars(byId("routes"), rows(shown.main, "accent", total), "no result routed yet");
  const other = { copies: sum(shown.copies), filtered: sum(shown.filtered) };
  byId("copies-head").hidden = !other.copies;
  bars(byId("copies"), rows(shown.copies, "s2", total));
  byId("filtered-head").hidden = !other.filtered;
  bars(byId("filtered"), rows(shown.filtered, "other", total));
  const told = [
    shown.lost && `${number(shown.lost)} ${shown.lost === 1 ? "copy" : "copies"} lost: each is a dead letter`,
    shown.path_missing && `${count(shown.path_missing, "condition")} on a field that a record lacked`,
  ];
  set("routes-note", told.filter(Boolean).join(" · "));
  byId("routes-note").classList.toggle("alert", shown.lost > 0);
}
