// The box: one text to the worker's model, and its answer.

import { make, scores } from "/panels.js";
import { number } from "/words.js";

const form = document.getElementById("box");
const text = document.getElementById("text");
const answer = document.getElementById("answer");
const button = form.querySelector("button");

function told(all, words) {
  answer.replaceChildren(scores(all, all.map(([name]) => name).sort()), make("small", words));
}

async function ask() {
  const reply = await fetch("/classify", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text: text.value }),
  });
  if (!reply.ok) throw new Error((await reply.text()).trim());
  const found = await reply.json();
  const cut = found.truncated ? ", cut to the model's length" : "";
  told(found.scores, `${number(found.token_count)} tokens${cut}, ${number(found.milliseconds, 1)} ms in the model`);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  try {
    await ask();
  } catch (error) {
    answer.replaceChildren(make("p", error instanceof TypeError ? "the worker does not answer" : error.message, "error"));
  } finally {
    button.disabled = false;
  }
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  }
});
