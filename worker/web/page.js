// Follows the worker's event stream and shows its state. See also charts.js, panels.js, ask.js, format.js.

import { draw, points } from "/charts.js";
import { show } from "/panels.js";
import { elapsed } from "/format.js";
import "/ask.js";

const SILENCE = 4000; // ms without a snapshot until the worker counts as unreachable
const state = document.getElementById("state");
const notice = document.getElementById("notice");
const askPanel = document.getElementById("ask").closest("section");
const pause = document.getElementById("pause");

let receivedAt = performance.now();
let source = null;
let paused = false;
let newest = null;

function setState(text, mood) {
  if (state.textContent !== text) state.textContent = text;
  state.dataset.mood = mood;
  document.title = mood === "good" ? "streamlabel" : `${text} – streamlabel`;
}

function showHealth({ worker }) {
  document.body.classList.remove("unreachable");
  askPanel.hidden = !worker.classify;
  notice.hidden = worker.live;
  if (!worker.live) notice.textContent = worker.reason;
  const mood = !worker.live ? "bad" : worker.ready ? "good" : "wait";
  const states = [...new Set(worker.states)].join(", ");
  setState(worker.live && worker.ready ? states : worker.live ? worker.reason : "stalled", mood);
}

function showUnreachable() {
  if (paused) return;
  const silence = (performance.now() - receivedAt) / 1000;
  document.body.classList.add("unreachable");
  setState("unreachable", "bad");
  notice.hidden = false;
  notice.textContent = `The worker has not answered for ${elapsed(silence)}. The page shows its last figures and keeps trying to reconnect.`;
}

function render() {
  if (paused || !newest) return;
  show(newest);
  showHealth(newest);
  draw();
}

function listen() {
  source?.close();
  source = new EventSource("/events");
  source.addEventListener("history", (event) => {
    points.replace(JSON.parse(event.data));
  });
  source.addEventListener("snapshot", (event) => {
    receivedAt = performance.now();
    newest = JSON.parse(event.data);
    points.add(newest.point);
    render();
  });
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Resume" : "Pause";
  render();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
setInterval(() => {
  if (performance.now() - receivedAt > SILENCE) showUnreachable();
  if (source.readyState === EventSource.CLOSED) listen(); // refused: too many pages are open, or a proxy failed
}, 1000);
listen();
