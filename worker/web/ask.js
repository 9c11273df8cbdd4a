// The form that sends one text to the worker's model and shows the answer.

import { make } from "/dom.js";
import { scores } from "/posts.js";
import { count, number } from "/format.js";

const form = document.getElementById("ask");
const text = document.getElementById("text");
const answer = document.getElementById("answer");
const button = form.querySelector("button");

function showAnswer({ scores: labels, token_count: tokens, truncated, milliseconds }) {
  const note = truncated ? ", truncated to the model's length" : "";
  const facts = `${count(tokens, "token")}${note}, ${number(milliseconds, 1)} ms in the model`;
  answer.replaceChildren(scores(labels), make("small", facts));
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
