// The steps of a task on one axis of time: the wait for an engine, then each milestone of each attempt.

import { arrange, h, icon, setAttribute, setText } from "./dom.js";
import { duration, exact, now } from "./times.js";

export class Timeline {
  element = h("ol", { class: "timeline", "aria-label": "Steps" });
  #rows = [];
  #task = null;

  show(task) {
    this.#task = task;
    const steps = stepsOf(task);
    while (this.#rows.length < steps.length) this.#rows.push(new Row());
    this.#rows.length = steps.length;
    const start = Date.parse(steps[0].started_at);
    const end = Math.max(start + 1, Date.parse(task.completed_at ?? 0), ...steps.map(endOf));
    steps.forEach((step, number) => this.#rows[number].show(step, start, end));
    arrange(this.element, this.#rows.map((row) => row.element));
  }

  tick() {
    if (this.#task && this.#task.completed_at === null) this.show(this.#task);
  }
}

class Row {
  #mark = h("span", { class: "mark" });
  #name = h("span", { class: "name" });
  #bar = h("span", { class: "fill" });
  #took = h("time", { class: "took" });
  #message = h("span", { class: "message", hidden: true });
  element = h("li", {}, this.#mark, this.#name, h("span", { class: "track", "aria-hidden": "true" }, this.#bar), this.#took, this.#message);

  show(step, start, end) {
    if (this.element.dataset.status !== step.status) {
      this.element.dataset.status = step.status;
      this.#mark.replaceChildren(icon(step.status), h("span", { class: "unseen" }, `${step.status}: `));
    }
    const [from, to] = [Date.parse(step.started_at), endOf(step)];
    setText(this.#name, step.attempt > 1 ? `${step.name} (attempt ${step.attempt})` : step.name);
    setText(this.#took, duration(to - from));
    setAttribute(this.#took, "datetime", step.started_at);
    setAttribute(this.#took, "title", `since ${exact(step.started_at)}`);
    setText(this.#message, step.message ?? "");
    this.#message.hidden = !step.message;
    this.#bar.style.setProperty("--from", `${(100 * (from - start)) / (end - start)}%`);
    this.#bar.style.setProperty("--width", `${(100 * (to - from)) / (end - start)}%`);
  }
}

/** The task's own steps, after the time that it waited. */
function stepsOf(task) {
  const first = task.steps[0]?.started_at ?? task.started_at ?? task.completed_at;
  const began = lifeOf(task);
  const ms = first === null ? null : Math.max(0, Date.parse(first) - Date.parse(began));
  const status = first === null ? "pending" : task.started_at === null ? task.status : "completed";
  const wait = { name: "wait for an engine", attempt: 1, status, started_at: began, ms, message: null };
  return [wait, ...task.steps.map((step, number) => closed(step, task.steps[number + 1], task))];
}

/** A step whose end nobody could report: it ended at the latest when the next one began, or the task came to its end. */
function closed(step, next, task) {
  const end = step.ms === null ? next?.started_at ?? task.completed_at : null;
  if (end === null) return step;
  const status = step.status !== "running" ? step.status : next ? "failed" : task.status;
  return { ...step, status, ms: Math.max(0, Date.parse(end) - Date.parse(step.started_at)) };
}

/** When the task began to wait: when it was accepted, or, after somebody has retried it, when its message was sent. */
function lifeOf(task) {
  const isFirst = task.steps[0]?.attempt === 1 || (task.attempts === 1 && task.started_at !== null);
  const began = isFirst || task.queued_at === null ? task.created_at : task.queued_at;
  const first = task.steps[0]?.started_at;
  return first !== undefined && first < began ? first : began;
}

function endOf(step) {
  return step.ms === null ? now() : Date.parse(step.started_at) + step.ms;
}
