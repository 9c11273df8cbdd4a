// Formats numbers: with a unit, and with no more digits than a reader needs.

export const NONE = "–";
const formats = new Map();

function format(digits) {
  if (!formats.has(digits)) formats.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  return formats.get(digits);
}

export function number(value, digits = value < 100 && value % 1 ? 1 : 0) {
  return value == null ? NONE : format(digits).format(value);
}

export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

// A small share does not look like none at all.
export function percent(share, digits = 1) {
  if (share == null) return NONE;
  const least = 10 ** -(digits + 2), small = share > 0 && share < least / 2;
  return `${small ? "<" : ""}${format(digits).format((small ? least : share) * 100)} %`;
}

export function duration(seconds) {
  if (seconds == null) return [NONE, ""];
  if (seconds >= 99.5) return [format(0).format(seconds), "s"];
  if (seconds >= 0.9995) return [format(seconds < 10 ? 2 : 1).format(seconds), "s"];
  const ms = seconds * 1000;
  return [format(ms && ms < 10 ? 1 : 0).format(ms), "ms"];
}

export function bytes(value) {
  if (value == null) return NONE;
  const step = value < 1e3 ? 0 : value < 1e6 ? 1 : 2;
  return `${format(step ? 1 : 0).format(value / 1000 ** step)} ${["B", "kB", "MB"][step]}`;
}

// The two largest units: 45 s, 12 min, 3 h 5 min, 2 d 4 h.
export function elapsed(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const [large, small, units] = minutes < 1440 ? [Math.floor(minutes / 60), minutes % 60, ["h", "min"]] : [Math.floor(minutes / 1440), Math.floor((minutes % 1440) / 60), ["d", "h"]];
  return [`${large} ${units[0]}`, small && `${small} ${units[1]}`].filter(Boolean).join(" ");
}

export const ago = (seconds) => (seconds < 2 ? "now" : `${elapsed(seconds)} ago`);

const clocks = [false, true].map((seconds) => new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }) }));
const dates = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
export const clock = (ms, seconds = false) => clocks[Number(seconds)].format(ms);
export const date = (ms) => dates.format(ms);

export const spaced = (name) => name.replaceAll("_", " ");

// The first of a list, and how many more there are.
export const first = (names, shown = 2) => [...names.slice(0, shown), names.length > shown && `${names.length - shown} more`].filter(Boolean).join(", ");
