// The last posts, and the scores of a text.

import { byId, keyed, make } from "/dom.js";
import { paintLabel } from "/colours.js";
import { count, number, percent, spaced } from "/format.js";

function score([name, share], painted) {
  const row = make("div", "", "score");
  const swatch = make("span", "", "swatch");
  painted(swatch);
  const label = make("bdi", name);
  label.title = name;
  row.append(swatch, label, make("span", percent(share)));
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

function item(post) {
  const element = make("li");
  if (post.reason) {
    const left = make("div");
    left.append(make("bdi", `dead letter: ${spaced(post.reason)}`, "dead"), make("small", post.id));
    element.append(left);
    return element;
  }
  const text = make("bdi", post.text ?? count(post.characters, "character"), post.text == null ? "quiet" : "");
  text.dir = "auto";
  const left = make("div");
  left.append(text);
  if (post.text != null && post.characters > 280) left.append(make("small", `the first 280 of ${number(post.characters)} characters`));
  element.append(left, scores(post.scores, 2));
  return element;
}

export function posts(shown) {
  keyed(byId("posts"), shown.posts, (post) => JSON.stringify(post), item);
  byId("no-posts").hidden = shown.posts.length > 0;
}
