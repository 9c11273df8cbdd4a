// Follows the worker's event stream and shows its state; each other module shows one part of it.

import "/ask.js";
import { draw } from "/charts.js";
import { dead } from "/dead.js";
import { byId, set } from "/dom.js";
import { figures, story } from "/figures.js";
import { elapsed } from "/format.js";
import { confidence } from "/histogram.js";
import { group, identity, title, workers } from "/identity.js";
import { models, shadow } from "/models.js";
import { batches, drift, labels, partitions, stages } from "/panels.js";
import { active, known, points } from "/points.js";
import { posts } from "/posts.js";
import { routes } from "/routes.js";
import { settings } from "/settings.js";
import { eachModel } from "/several.js";

const SILENCE = 4000; // ms without a snapshot until the worker counts as unreachable
const state = byId("state");
const notice = byId("notice");
const pause = byId("pause");
const parts = [identity, labels, figures, story, drift, confidence, stages, batches, partitions, dead, group, posts, eachModel, routes, models, shadow, settings];

let receivedAt = performance.now();
let source = null;
let paused = false;
let newest = null;

function setState(text, mood) {
  set(state, text);
  state.dataset.mood = mood;
  const name = newest ? title(newest) : "streamlabel";
  document.title = mood === "good" ? name : `${text} – ${name}`;
}

function showHealth(shown) {
  const { worker } = shown;
  document.body.classList.remove("unreachable");
  byId("ask").closest("section").hidden = !worker.classify;
  const { all, running } = workers(shown);
  const short = all > 1 && running < all && `${running} of ${all} running`;
  notice.hidden = worker.live;
  if (!worker.live) set(notice, worker.reason);
  if (!worker.live) setState(short && running ? short : "stalled", "bad");
  else if (!worker.ready) setState(worker.reason, "wait");
  else setState(short || [...new Set(worker.states)].join(", "), short ? "wait" : "good");
}

function showUnreachable() {
  if (paused) return;
  const silence = (performance.now() - receivedAt) / 1000;
  document.body.classList.add("unreachable");
  setState("unreachable", "bad");
  notice.hidden = false;
  set(notice, `The worker has not answered for ${elapsed(silence)}. The page shows its last figures and keeps trying to reconnect.`);
}

function render() {
  if (paused || !newest) return;
  parts.forEach((part) => part(newest));
  showHealth(newest);
  draw(newest);
}

const chosen = () => location.hash.slice(1);

function showRange() {
  byId("ranges").querySelector(`[value="${points.range}"]`).checked = true;
}

// A page that is opened after a run shows the shortest range that has something to see.
async function open() {
  const ranges = known(chosen()) ? [chosen()] : ["5m", "1h", "24h"];
  for (const range of ranges) {
    await points.load(range);
    if (active(points)) break;
  }
  if (!active(points) && ranges.length > 1) await points.load("5m");
  showRange();
  render();
}

const retried = (loading) => loading.catch(() => {}); // the notice tells of a worker that is gone

function listen() {
  source?.close();
  source = new EventSource("/events");
  source.addEventListener("open", () => retried(open()));
  source.addEventListener("snapshot", (event) => {
    receivedAt = performance.now();
    newest = JSON.parse(event.data);
    if (newest.point) points.add(newest.point);
    retried(points.refresh(newest.at));
    render();
  });
}

byId("ranges").addEventListener("change", (event) => {
  history.replaceState(null, "", `#${event.target.value}`);
  retried(open());
});
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  set(pause, paused ? "Resume" : "Pause");
  render();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
setInterval(() => {
  if (performance.now() - receivedAt > SILENCE) showUnreachable();
  if (source.readyState === EventSource.CLOSED) listen(); // refused: too many pages are open, or a proxy failed
}, 1000);
listen();
