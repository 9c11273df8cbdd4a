// The form that sends one text to the worker's model and shows the answer.

import { make } from "/dom.js";
import { byModel, decision, scores } from "/posts.js";
import { count, number } from "/format.js";

const form = document.getElementById("ask");
const text = document.getElementById("text");
const answer = document.getElementById("answer");
const button = form.querySelector("button");

function facts({ token_count: tokens, truncated, windows, milliseconds, ...rest }) {
  const read = [count(tokens, "token"), windows > 1 && count(windows, "window"), truncated && "truncated to the model's length"];
  return [decision(rest), ...read, `${number(milliseconds, 1)} ms in the model`].filter(Boolean).join(", ");
}

function showAnswer(told) {
  if (told.filtered) return answer.replaceChildren(make("p", `filtered: ${told.filtered}`));
  if (!told.classifications) return answer.replaceChildren(scores(told.scores), make("small", facts(told)));
  const parts = Object.entries(told.classifications).map(([name, part]) => ({ name, ...(part ?? { absent: told.absences[name] }) }));
  answer.replaceChildren(byModel(parts), make("small", `${number(told.milliseconds, 1)} ms in the models`));
}

async function ask() {
  const response = await fetch("/classify", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text: text.value }),
  });
  if (!response.ok) throw new Error((await response.text()).trim());
  showAnswer(await response.json());
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  try {
    await ask();
  } catch (error) {
    const message = error instanceof TypeError ? "the worker does not answer" : error.message;
    answer.replaceChildren(make("p", message, "error"));
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
