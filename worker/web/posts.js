// The last posts, and the scores of a text.

import { byId, keyed, make } from "/dom.js";
import { paint, paintLabel } from "/colours.js";
import { count, number, percent, spaced } from "/format.js";

function score([name, share], painted) {
  const row = make("div", "", "score");
  const swatch = make("span", "", "swatch");
  painted(swatch);
  const label = make("bdi", name);
  label.title = name;
  row.append(swatch, label, make("span", share == null ? "" : percent(share)));
  return row;
}

// One bar of 100 %, and the most probable labels below it.
export function scores(all, shown = all.length) {
  const list = make("div", "", "scores");
  const bar = make("div", "", "stacked thin");
  bar.setAttribute("aria-hidden", "true");
  for (const [name, share] of all) {
    const segment = make("span");
    segment.style.width = `${share * 100}%`;
    paintLabel(name)(segment);
    bar.append(segment);
  }
  list.append(bar, ...all.slice(0, shown).map((one) => score(one, paintLabel(one[0]))));
  return list;
}

// A line for each of several models: its label and what was decided, or why it has none.
export function byModel(parts) {
  const list = make("div", "", "by-model");
  for (const part of parts) {
    const { name, scores: all, absent } = part;
    const [label, share] = all ? all[0] : [spaced(absent), null];
    const row = score([label, share], all ? paintLabel(label) : paint("other"));
    row.prepend(make("bdi", name, "of"));
    list.append(row);
    if (all && decision(part)) list.append(make("small", decision(part), "said"));
  }
  return list;
}

// The labels above their thresholds, or the label that stands for an uncertain one.
export function decision({ decided, label, scores: all }) {
  if (decided) return `decided: ${decided.join(", ") || "none"}`;
  return label && label !== all[0][0] ? label : "";
}

function without(words, id, name) {
  const left = make("div");
  left.append(make("bdi", words, name), make("small", id));
  return left;
}

function item(post) {
  const element = make("li");
  if (post.reason) {
    element.append(without(`dead letter: ${spaced(post.reason)}`, post.id, "dead"));
    return element;
  }
  if (post.filtered) {
    element.append(without(`filtered: ${spaced(post.filtered)}`, post.id, "quiet"));
    return element;
  }
  const text = make("bdi", post.text ?? count(post.characters, "character"), post.text == null ? "quiet" : "");
  text.dir = "auto";
  const left = make("div");
  left.append(text);
  if (post.text != null && post.characters > 280) left.append(make("small", `the first 280 of ${number(post.characters)} characters`));
  if (!post.parts && decision(post)) left.append(make("small", decision(post)));
  element.append(left, post.parts ? byModel(post.parts) : scores(post.scores, 2));
  return element;
}

export function posts(shown) {
  keyed(byId("posts"), shown.posts, (post) => JSON.stringify(post), item);
  byId("no-posts").hidden = shown.posts.length > 0;
}
