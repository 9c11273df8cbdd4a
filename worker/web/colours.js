// The colour of a label depends on the label alone: on its meaning if it is known, else on its hash.

const SLOTS = 10; // --l0 to --l9 in page.css
const MEANINGS = {
  "good-deep": ["very positive", "5 stars"],
  good: ["positive", "pos", "good", "4 stars", "safe", "ham", "not spam", "non-toxic", "not toxic", "not hate", "non-offensive", "not offensive"],
  neutral: ["neutral", "neu", "mixed", "3 stars"],
  bad: ["negative", "neg", "bad", "2 stars", "spam", "toxic", "hate", "hateful", "offensive", "unsafe", "obscene", "insult", "threat"],
  "bad-deep": ["very negative", "1 star", "severe toxic", "severe toxicity"],
};
const known = new Map(Object.entries(MEANINGS).flatMap(([tone, labels]) => labels.map((label) => [label, tone])));
const utf8 = new TextEncoder();

// FNV-1a, 32 bits (Fowler, Noll and Vo).
const hash = (text) => utf8.encode(text).reduce((sum, byte) => Math.imul(sum ^ byte, 0x01000193) >>> 0, 0x811c9dc5);

export function tone(label) {
  return known.get(label.toLowerCase().replaceAll("_", " ").trim()) ?? `l${hash(label) % SLOTS}`;
}

let textures = new Map();

// Of a model's labels with one colour the second is a tint and the others are hatched, by name.
// A label of several models looks as in the first of them.
export function learn(models) {
  textures = new Map();
  for (const labels of models) {
    const used = new Map();
    for (const label of [...labels].sort()) {
      const slot = tone(label);
      if (!textures.has(label)) textures.set(label, Math.min(2, used.get(slot) ?? 0));
      used.set(slot, (used.get(slot) ?? 0) + 1);
    }
  }
}

export const texture = (label) => textures.get(label) ?? 0;

// Paints an element's background with a colour of page.css.
export function paint(name, pattern = 0) {
  return (element) => {
    element.style.setProperty("--paint", `var(--${name})`);
    element.dataset.texture = pattern;
  };
}

export const paintLabel = (label) => paint(tone(label), texture(label));

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Opaque, because the areas of a stacked chart lie on top of one another.
const softened = (name, share) => `color-mix(in srgb, ${colour(name)} ${share}%, ${colour("card")})`;

export function fill(context, name, pattern = 0) {
  if (pattern < 2) return softened(name, pattern ? 22 : 52);
  const tile = new OffscreenCanvas(8, 8);
  const brush = tile.getContext("2d");
  brush.fillStyle = softened(name, 22);
  brush.fillRect(0, 0, 8, 8);
  brush.strokeStyle = softened(name, 60);
  for (const from of [-8, 0, 8]) {
    brush.moveTo(from, 8);
    brush.lineTo(from + 8, 0);
  }
  brush.stroke();
  return context.createPattern(tile, "repeat");
}
