// Elements: made, changed only where they differ, and reused by key. Text is set by textContent alone.

export const byId = (id) => document.getElementById(id);

export function make(tag, text = "", name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

export function set(target, text) {
  const element = typeof target === "string" ? byId(target) : target;
  if (element.textContent !== text) element.textContent = text;
}

export function setWithUnit(id, value, unit) {
  set(id, value);
  set(byId(id).nextElementSibling, unit);
}

// Shows one child per item. A child keeps its focus and its open state while its item's key stays.
export function keyed(parent, items, key, build, update = () => {}) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const used = new Map();
  items.forEach((item, n) => {
    const plain = String(key(item));
    const times = used.get(plain) ?? 0;
    used.set(plain, times + 1);
    const name = times ? `${plain} ${times}` : plain;
    const element = old.get(name) ?? build(item);
    old.delete(name);
    element.dataset.key = name;
    update(element, item);
    if (parent.children[n] !== element) parent.insertBefore(element, parent.children[n] ?? null);
  });
  old.forEach((element) => element.remove());
}

export const within = (share) => `${Math.max(0, Math.min(1, share || 0)) * 100}%`;

function newBar({ name }) {
  const row = make("div", "", "bar");
  row.setAttribute("role", "listitem");
  const label = make("bdi", name);
  label.title = name;
  const track = make("span", "", "track");
  track.setAttribute("aria-hidden", "true");
  track.append(make("span"));
  row.append(label, track, make("span", "", "amount"), make("span", "", "part"));
  return row;
}

function showBar(row, { share, amount = "", part = "", paint }) {
  const filled = row.querySelector(".track > span");
  filled.style.width = within(share);
  filled.style.minWidth = share > 0 ? "1px" : "0";
  paint?.(filled);
  set(row.querySelector(".amount"), amount);
  set(row.querySelector(".part"), part);
}

// Rows: {name, share of the track, amount, part, paint(element)}.
export function bars(parent, rows, placeholder = "") {
  const list = rows.length || !placeholder ? rows : [{ name: placeholder, empty: true }];
  const build = (row) => (row.empty ? make("p", row.name, "quiet") : newBar(row));
  keyed(parent, list, (row) => (row.empty ? `- ${row.name}` : row.name), build, (element, row) => row.empty || showBar(element, row));
}

// Segments: {name, share of the whole, paint(element)}; a whole of 100 %.
export function stacked(parent, segments) {
  keyed(parent, segments, ({ name }) => name, () => make("span"), (element, { name, share, paint }) => {
    element.style.width = within(share);
    element.title = name;
    paint(element);
  });
}

// Pairs: [term, figure, id of the figure's element, if it needs one].
export function pairs(id, all) {
  const build = ([name, , own]) => {
    const row = make("div");
    row.append(make("dt", name), make("dd"));
    if (own) row.lastChild.id = own;
    return row;
  };
  keyed(byId(id), all, ([name]) => name, build, (row, [, figure]) => set(row.lastChild, figure));
}
