// Formats numbers: with a unit, and with no more digits than a reader needs.

const NONE = "–";
const formats = new Map();

function format(digits) {
  if (!formats.has(digits)) formats.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  return formats.get(digits);
}

export function number(value, digits = value < 100 && value % 1 ? 1 : 0) {
  return value == null ? NONE : format(digits).format(value);
}

export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

export function percent(share, digits = 1) {
  return share == null ? NONE : `${format(digits).format(share * 100)} %`;
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

export function elapsed(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export const spaced = (name) => name.replaceAll("_", " ");
