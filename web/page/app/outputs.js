// What a task gives, drawn by the JSON Schema of its kind's outputs: programs with colours, other long texts and data in
// blocks, short values as facts.

import { announce, arrange, copy, h, setText } from "./dom.js";
import { Source, extensionOf } from "./source.js";

/** Milliseconds for which a button says that it has done its work. */
const THANKS = 1500;

export class Outputs {
  element = h("div", { class: "outputs" });
  #blocks = new Map();

  /** Show what is there. `schema` is the kind's outputs. Returns the facts: [[label, text]], for a table of details. */
  show(task, schema) {
    const facts = [];
    const shown = [];
    const outputs = Object.entries(schema.properties ?? {});
    for (const [name, property] of outputs) {
      const value = task[name];
      const label = property.title ?? name.replaceAll("_", " ");
      const language = property["x-language"] ?? task[property["x-language-field"]];
      const isProgram = "x-language" in property || "x-language-field" in property;
      if (!isProgram && isFact(value, name === outputs[0][0])) {
        if (!isEmpty(value)) facts.push([label, sayFact(value)]);
        continue;
      }
      if (isEmpty(value) && !(isProgram && task.status === "running")) continue;
      const isText = typeof value === "string";
      const block = this.#block(name, label);
      block.show(isText ? value : JSON.stringify(value, null, 2), isProgram ? language : isText ? null : "json", isProgram || !isText, fileName(task));
      shown.push(block.element);
    }
    arrange(this.element, shown);
    return facts;
  }

  #block(name, label) {
    const key = `${name} ${label}`;
    if (!this.#blocks.has(key)) this.#blocks.set(key, new Block(label));
    return this.#blocks.get(key);
  }
}

class Block {
  #source;
  #language = h("span", { class: "language" });
  #file = "result.txt";
  element;

  constructor(label) {
    this.#source = new Source(label);
    const copying = h("button", { type: "button", class: "quiet" }, "Copy");
    copying.addEventListener("click", async () => {
      thank(copying, (await copy(this.#source.text)) ? "Copied" : "Select it, and copy by hand");
    });
    const saving = h("button", { type: "button", class: "quiet" }, "Download");
    saving.addEventListener("click", () => {
      save(this.#source.text, this.#file);
      thank(saving, "Downloaded");
    });
    const bar = h("div", { class: "block-bar" }, h("h3", {}, label), this.#language, copying, saving);
    this.element = h("div", { class: "block" }, bar, this.#source.element);
  }

  show(text, language, isCode, file) {
    this.#source.element.classList.toggle("prose", !isCode);
    this.#source.show(text, language);
    setText(this.#language, language ?? "");
    this.#file = `${file}.${extensionOf(language)}`;
  }
}

function isEmpty(value) {
  return value === null || value === undefined || value === "" || (typeof value === "object" && Object.keys(value).length === 0);
}

function isFlat(value) {
  return !Array.isArray(value) && Object.keys(value).length <= 6 && Object.values(value).every((part) => typeof part !== "object" && String(part).length < 40);
}

/** Short values are facts; a text that is the first output is what the task was for, however short. */
function isFact(value, isFirst) {
  if (typeof value === "object" && value !== null) return isFlat(value);
  return typeof value !== "string" || value === "" || (!isFirst && value.length < 80 && !value.includes("\n"));
}

function sayFact(value) {
  if (typeof value !== "object") return typeof value === "number" ? value.toLocaleString() : String(value);
  return Object.entries(value).map(([name, part]) => `${name.replaceAll("_", " ")} ${sayFact(part)}`).join(", ");
}

/** A file's name from the task's first line: "create-a-function-that-sums". */
function fileName(task) {
  const words = (task.title ?? "").normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return words.slice(0, 6).join("-").slice(0, 60) || `task-${task._id.slice(0, 8)}`;
}

function save(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Let a button say that it is done, without changing its width for long. */
function thank(button, words) {
  const before = button.dataset.words ?? button.textContent;
  button.dataset.words = before;
  button.textContent = words;
  announce(words);
  setTimeout(() => (button.textContent = before), THANKS);
}

