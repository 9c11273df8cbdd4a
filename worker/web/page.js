// Listens to the worker, and says when it is gone. The rest: charts.js, panels.js, box.js, words.js.

import { draw, points } from "/charts.js";
import { show } from "/panels.js";
import { since } from "/words.js";
import "/box.js";

const SILENCE = 4000; // ms without a picture: the worker is gone
const state = document.getElementById("state");
const notice = document.getElementById("notice");
const box = document.getElementById("box").closest("section");
const pause = document.getElementById("pause");

let heard = performance.now();
let source = null;
let held = false;
let newest = null;

function say(words, mood) {
  if (state.textContent !== words) state.textContent = words;
  state.dataset.mood = mood;
  document.title = mood === "good" ? "streamlabel" : `${words} – streamlabel`;
}

function alive(shown) {
  const { worker } = shown;
  document.body.classList.remove("gone");
  box.hidden = !worker.box;
  notice.hidden = worker.live;
  if (!worker.live) notice.textContent = worker.words;
  const mood = !worker.live ? "bad" : worker.ready ? "good" : "wait";
  const states = [...new Set(worker.states)].join(", ");
  say(worker.live && worker.ready ? states : worker.live ? worker.words : "stalled", mood);
}

function gone() {
  if (held) return;
  const silent = (performance.now() - heard) / 1000;
  document.body.classList.add("gone");
  say("worker gone", "bad");
  notice.hidden = false;
  notice.textContent = `The worker has not answered for ${since(silent)}. What is shown is the last it said; asking again.`;
}

function render() {
  if (held || !newest) return;
  show(newest);
  alive(newest);
  draw();
}

function listen() {
  source?.close();
  source = new EventSource("/events");
  source.addEventListener("history", (event) => {
    points.replace(JSON.parse(event.data));
  });
  source.addEventListener("picture", (event) => {
    heard = performance.now();
    newest = JSON.parse(event.data);
    points.add(newest.point);
    render();
  });
}

pause.addEventListener("click", () => {
  held = !held;
  pause.setAttribute("aria-pressed", String(held));
  pause.textContent = held ? "Go on" : "Pause";
  render();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
setInterval(() => {
  if (performance.now() - heard > SILENCE) gone();
  if (source.readyState === EventSource.CLOSED) listen(); // refused: there are too many pages, or a proxy
}, 1000);
listen();
