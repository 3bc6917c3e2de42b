// The list of tasks: what waits to be sent on top, then what the server has, newest first.

import { arrange, h, icon, setAttribute, setText } from "./dom.js";
import { address, go, isPlainClick, route } from "./route.js";
import { ago, duration, durationOf, exact } from "./times.js";
import { wordFor } from "./words.js";

/** Pixels before its end at which the next older tasks are loaded. */
const AHEAD = 400;

export class List {
  #feed;
  #outbox;
  #user;
  #titles = new Map();
  #rows = new Map();
  #element = document.getElementById("list");
  #end = document.getElementById("list-end");
  #older = document.getElementById("older");
  #search = document.getElementById("search");
  #kinds = document.getElementById("kind-filter");
  #isLoading = false;
  #isStalled = false;

  /** `actions`: edit(item) and drop(item) for what could not be sent, more() to load older tasks (returns a promise of
   * whether that worked). */
  constructor(feed, outbox, actions) {
    this.#feed = feed;
    this.#outbox = outbox;
    this.actions = actions;
    this.#search.addEventListener("input", () => this.draw());
    this.#kinds.addEventListener("change", () => go({ kind: this.#kinds.value || null }));
    this.#older.addEventListener("click", () => this.#loadOlder());
    new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting) && this.#query === "") this.#loadOlder();
    }, { rootMargin: `${AHEAD}px`, scrollMargin: `${AHEAD}px` }).observe(this.#older);
  }

  show(user) {
    this.#user = user;
  }

  /** The kinds that there are, to filter by. */
  drawKinds(kinds) {
    this.#titles = new Map(kinds.map(({ kind, title }) => [kind, title]));
    this.#kinds.replaceChildren(
      h("option", { value: "" }, "All kinds"),
      ...kinds.map(({ kind, title }) => h("option", { value: kind }, title)),
    );
    this.#kinds.value = route().kind ?? "";
    this.draw();
  }

  /** Go to the row of a task, where it is in the list. */
  focus(id) {
    this.#rows.get(id)?.focus();
  }

  /** What was just sent must be seen. */
  clearSearch() {
    this.#search.value = "";
  }

  /** The server answers (again): go on loading what is in sight, if that had failed. */
  recover() {
    if (!this.#isStalled) return;
    this.#isStalled = false;
    this.#loadOlder();
  }

  get #query() {
    return this.#search.value.trim().toLowerCase();
  }

  /** A task that was waiting to be sent is now known by its id: it keeps its row. */
  rename(key, id) {
    const row = this.#rows.get(key);
    if (!row || this.#rows.has(id)) return;
    this.#rows.delete(key);
    this.#rows.set(id, row);
  }

  draw() {
    const here = route();
    const { kind } = here;
    if (this.#kinds.value !== (kind ?? "")) this.#kinds.value = kind ?? "";
    const query = this.#query;
    const matches = (...texts) => query === "" || texts.some((text) => text?.toLowerCase().includes(query));
    const waiting = this.#outbox.waiting(this.#user).filter((item) => matches(item.title, item.kind));
    const tasks = this.#feed.tasks.filter((task) =>
      matches(task.title, task.kind, task.status, task._id, task.error?.message));
    const rows = new Map();
    for (const item of waiting) rows.set(item.key, this.#row(item.key).showWaiting(item, this.actions));
    for (const task of tasks) rows.set(task._id, this.#row(task._id).showTask(task, this.#titles, here));
    this.#rows = rows;
    arrange(this.#element, [...rows.values()].map((row) => row.element));
    this.#drawEnd(tasks.length + waiting.length);
  }

  /** Times go on also when nothing else changes. */
  tick() {
    for (const row of this.#rows.values()) row.tick();
  }

  #row(key) {
    return this.#rows.get(key) ?? new Row();
  }

  #drawEnd(shown) {
    const { kind, status } = route();
    const loaded = this.#feed.tasks.length;
    let words = "";
    if (!this.#feed.isLoaded) words = shown ? "" : "Loading…";
    else if (this.#query !== "") words = `${shown} of ${loaded} loaded tasks match.`;
    else if (shown === 0) words = kind || status ? "No task matches these filters." : "No tasks yet.";
    setText(this.#end, words);
    this.#end.hidden = words === "";
    this.#older.hidden = !this.#feed.hasOlder;
  }

  async #loadOlder() {
    if (this.#isLoading || !this.#feed.hasOlder) return;
    this.#isLoading = true;
    try {
      this.#isStalled = !(await this.actions.more());
    } finally {
      this.#isLoading = false;
    }
    if (this.#isStalled) return;
    // The button may still be in sight: an observer tells only of changes.
    const { top } = this.#older.getBoundingClientRect();
    if (this.#query === "" && !this.#older.hidden && top < innerHeight + AHEAD && top > 0) this.#loadOlder();
  }
}

class Row {
  #task = null;
  #mark = h("span", { class: "mark" });
  #title = h("span", { class: "title", dir: "auto" });
  #when = h("time", { class: "when" });
  #words = h("span", { class: "words" });
  #kind = h("span", { class: "kind" });
  #took = h("span", { class: "took" });
  #link = h("a", { class: "row" }, this.#mark, this.#title, this.#when, this.#words, this.#kind, this.#took);
  #buttons = h("span", { class: "row-actions", hidden: true });
  element = h("li", {}, this.#link, this.#buttons);

  constructor() {
    this.#link.addEventListener("click", (event) => {
      if (!isPlainClick(event)) return;
      event.preventDefault();
      if (this.#task) go({ task: this.#task._id });
    });
  }

  showTask(task, titles, here) {
    this.#buttons.hidden = true;
    setAttribute(this.#link, "href", address({ task: task._id }, here));
    setAttribute(this.#link, "aria-current", task._id === here.task ? "true" : null);
    if (this.#task !== task) {
      this.#task = task;
      this.#draw(task.status, task.title || "(no title)", titles.get(task.kind) ?? task.kind, wordFor(task.status), task.created_at);
    }
    this.tick();
    return this;
  }

  focus() {
    this.#link.focus();
  }

  /** An item of the outbox. */
  showWaiting(item, actions) {
    const isRefused = item.state === "refused";
    const words = isRefused ? `Not accepted: ${reason(item.problem)}` : item.why ? `Not confirmed yet. ${item.why}` : "Sending…";
    this.#task = null;
    setAttribute(this.#link, "href", null);
    this.#draw(isRefused ? "refused" : "sending", item.title || "(no title)", item.kind, words, new Date(item.at).toISOString());
    setText(this.#took, "");
    if (this.#buttons.dataset.for !== item.state) {
      this.#buttons.dataset.for = item.state;
      this.#buttons.replaceChildren(
        h("button", { type: "button", class: "link", onclick: () => actions.edit(item) }, "Edit"),
        h("button", { type: "button", class: "link", onclick: () => actions.drop(item) }, "Discard"),
      );
    }
    this.#buttons.hidden = !isRefused && !item.why;
    return this;
  }

  tick() {
    const created = this.#when.getAttribute("datetime");
    if (created) setText(this.#when, ago(created));
    if (this.#task) {
      const took = durationOf(this.#task);
      setText(this.#took, took === null ? "" : duration(took));
    }
  }

  #draw(status, title, kind, words, created) {
    if (this.element.dataset.status !== status) {
      this.element.dataset.status = status;
      this.#mark.replaceChildren(icon(status));
    }
    setText(this.#title, title);
    setText(this.#kind, kind);
    setText(this.#words, words);
    if (this.#when.getAttribute("datetime") !== created) {
      this.#when.setAttribute("datetime", created);
      this.#when.title = exact(created);
    }
    setText(this.#when, ago(created));
  }
}

function reason({ detail, errors }) {
  return errors.length ? errors.map(({ field, message }) => `${field} ${message}`).join("; ") : detail;
}
