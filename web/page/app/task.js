// One task, at its own address: what it is at, what came of it, and what can be done about it.

import { adviceFor } from "./advice.js";
import { Away, Refused, Resource, call } from "./api.js";
import { announce, arrange, copy, h, icon, setAttribute, setText } from "./dom.js";
import { Outputs } from "./outputs.js";
import { address, go, isPlainClick } from "./route.js";
import { Timeline } from "./timeline.js";
import { ago, duration, durationOf, exact, now } from "./times.js";
import { isFinished, titleOf, wordFor } from "./words.js";

/** What an id looks like; nothing else is asked for. */
const ID = /^[0-9a-f]{32}$/;

/** How often a call of a button is tried, and milliseconds between. */
const TRIES = 4;
const PAUSE = 700;

/** Milliseconds between two looks for a task that the server did not know. */
const MISSING_PAUSE = 5000;

export class TaskView {
  #id;
  #resource;
  #kinds;
  #actions;
  #task = null;
  #isWhole = false;
  #missedAt = -Infinity;
  #changes = 0;
  #reading = null;
  #timeline = new Timeline();
  #outputs = new Outputs();
  #parts;
  element;

  /** `actions`: changed(task) after it was cancelled or retried here (null: nobody knows), use(kind, inputs) for a new one.
   * `summary` is what the list knows already, or undefined. */
  constructor(id, kinds, actions, summary) {
    this.#id = id;
    this.#kinds = kinds;
    this.#actions = actions;
    this.#resource = new Resource(`/tasks/get/${id}`);
    this.#parts = this.#build();
    if (summary) this.#show({ ...summary, steps: [] });
  }

  get id() {
    return this.#id;
  }

  get isBusy() {
    return this.#task !== null && !isFinished(this.#task);
  }

  /** What the window is called while this task is open. */
  get pageTitle() {
    return this.#task === null ? "Sluice" : `${wordFor(this.#task.status)}: ${this.#parts.title.textContent} · Sluice`;
  }

  focus() {
    this.#parts.title.focus({ preventScroll: true });
  }

  /** A task that was missed has come back. */
  lookAgain() {
    this.#missedAt = -Infinity;
  }

  /** Read the task again. Throws Away. */
  refresh() {
    this.#reading ??= this.#read().finally(() => (this.#reading = null));
    return this.#reading;
  }

  async #read() {
    if (!ID.test(this.#id)) return this.#miss();
    if (performance.now() - this.#missedAt < MISSING_PAUSE) return;
    const changes = this.#changes;
    try {
      const isNew = await this.#resource.read();
      this.#parts.notice.hidden = true;
      this.#missedAt = -Infinity;
      if (!isNew) return;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      // It may come back: a server that has forgotten it is sent it again by the outbox.
      this.#resource = new Resource(`/tasks/get/${this.#id}`);
      return this.#miss();
    }
    if (changes !== this.#changes) return void (this.#resource = new Resource(`/tasks/get/${this.#id}`)); // asked before
    this.#isWhole = true;
    this.#show(this.#resource.body);
  }

  /** The kinds have been read (again). */
  drawKinds(kinds) {
    this.#kinds = kinds;
    if (this.#task) this.#show(this.#task);
  }

  tick() {
    if (!this.#task || this.#missedAt > 0) return;
    this.#drawTimes();
    this.#timeline.tick();
    if (this.#task.status === "pending") this.#drawState();
  }

  #build() {
    const mark = h("span", { class: "mark" });
    const status = h("span", { class: "status-word" });
    const parts = {
      badge: h("span", { class: "badge" }, mark, status),
      mark,
      status,
      kind: h("span", { class: "kind" }),
      created: h("time", { class: "created" }),
      took: h("span", { class: "took" }),
      attempts: h("span", { class: "attempts" }),
      title: h("h2", { class: "task-title", tabindex: "-1", dir: "auto" }, "…"),
      progress: h("progress", { class: "progress", max: "100", "aria-label": "Progress" }),
      notice: h("p", { class: "notice", role: "alert", hidden: true }),
      state: h("div", { class: "state" }),
      inputs: h("div", { class: "inputs" }),
      facts: h("dl", { class: "facts" }),
      use: h("button", { type: "button", class: "quiet", onclick: () => this.#use() }, "Use as a new task"),
      link: h("button", { type: "button", class: "quiet", onclick: () => this.#copyLink() }, "Copy link"),
      cancel: h("button", { type: "button", class: "danger", hidden: true, onclick: () => this.#change("cancel") }, "Cancel"),
      retry: h("button", { type: "button", class: "primary", hidden: true, onclick: () => this.#change("retry") }, "Retry"),
    };
    const back = h("a", { class: "back", href: address({ task: null }) }, icon("back"), "All tasks");
    back.addEventListener("click", (event) => {
      if (!isPlainClick(event)) return;
      event.preventDefault();
      go({ task: null });
    });
    this.element = h("article", { class: "task" },
      back,
      h("header", {},
        parts.title,
        h("p", { class: "meta" }, parts.badge, parts.kind, parts.created, parts.took, parts.attempts),
        h("div", { class: "task-actions" }, parts.use, parts.link, h("span", { class: "last" }, parts.cancel, parts.retry)),
        parts.progress),
      parts.notice,
      h("section", { class: "steps", "aria-label": "Timeline" }, this.#timeline.element),
      h("details", { class: "more" }, h("summary", {}, "Inputs and details"), parts.inputs, parts.facts),
      h("section", { class: "result", "aria-label": "Result" }, parts.state, this.#outputs.element),
    );
    return parts;
  }

  #show(task) {
    const before = this.#task;
    this.#task = task;
    const kind = this.#kinds.find((one) => one.kind === task.kind);
    const title = task.title ?? (titleOf(inputsOf(task, kind).map(([, value]) => value)) || "(no title)");
    const { badge, mark, status, progress, cancel, retry } = this.#parts;
    setText(this.#parts.title, title);
    if (this.element.dataset.status !== task.status) {
      this.element.dataset.status = task.status;
      mark.replaceChildren(icon(task.status));
      setText(status, wordFor(task.status));
      setAttribute(badge, "data-status", task.status);
    }
    if (before && before.status !== task.status && this.element.isConnected) announce(`${wordFor(task.status)}: ${title}`);
    setText(this.#parts.kind, kind?.title ?? task.kind);
    setText(this.#parts.attempts, task.attempts > 1 ? `${task.attempts} attempts` : "");
    // No value at all is a bar that only moves: nobody knows how far it is.
    setAttribute(progress, "value", task.status === "running" && task.progress > 0 ? task.progress : isFinished(task) ? 100 : null);
    setAttribute(progress, "data-idle", task.status !== "running");
    setAttribute(progress, "aria-hidden", task.status === "running" ? null : "true");
    cancel.hidden = isFinished(task);
    retry.hidden = !["failed", "cancelled"].includes(task.status);
    this.#parts.use.hidden = !kind;
    this.#parts.use.disabled = !this.#isWhole; // the list does not know the inputs
    this.#drawTimes();
    if (this.#isWhole) this.#timeline.show(task);
    this.#drawState();
    if (this.#isWhole) this.#drawInputsAndFacts(task, kind, this.#outputs.show({ ...task, title }, kind?.outputs ?? (this.#kinds.length > 0 ? unknown(task) : {})));
  }

  #drawTimes() {
    const { created, took } = this.#parts;
    const task = this.#task;
    setAttribute(created, "datetime", task.created_at);
    setAttribute(created, "title", exact(task.created_at));
    setText(created, ago(task.created_at));
    const milliseconds = durationOf(task);
    setText(took, milliseconds === null ? "" : `${isFinished(task) ? "took" : "for"} ${duration(milliseconds)}`);
  }

  /** What there is to say about a task, beside its outputs. */
  #drawState() {
    const task = this.#task;
    const { error } = task;
    const { state } = this.#parts;
    const say = (kind, title, ...rest) => {
      const text = JSON.stringify([kind, title, ...rest.map((part) => part?.textContent ?? part)]);
      if (drawn.get(state) === text) return;
      drawn.set(state, text);
      state.className = `state state-${kind}`;
      state.replaceChildren(...(title === null ? [] : [h("p", { class: "state-title" }, title), ...rest.filter(Boolean).map((part) => (typeof part === "string" ? h("p", {}, part) : part))]));
    };
    if (task.status === "failed") {
      say("failed", error.message, adviceFor(error.code), h("p", { class: "code" }, `Error code: ${error.code}`));
    } else if (task.status === "cancelled") {
      say("cancelled", "Cancelled.", "Nobody works on it any more. Retry it to have it done after all.");
    } else if (task.status === "pending" && error !== null) {
      const left = Math.ceil((Date.parse(task.retry_at ?? task.deadline) - now()) / 1000);
      say("again", error.message, left > 0 && task.retry_at ? `It is tried again in ${left} s, by itself.` : "It is tried again now, by itself.");
    } else if (task.status === "pending" && task.queued_at === null) {
      say("waiting", "Kept, and waiting for the queue.", "The queue is away just now. The task is sent to it as soon as it is back.");
    } else if (task.status === "pending") {
      const waited = now() - Date.parse(task.queued_at);
      say("waiting", "Waiting for an engine.", waited > 5000 ? "The engines are busy with other tasks, or one is being started." : null);
    } else {
      say("none", null);
    }
  }

  #drawInputsAndFacts(task, kind, outputs) {
    const inputs = inputsOf(task, kind).map(([name, value]) => {
      const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
      return [kind.inputs.properties[name].title ?? name, text ?? ""];
    });
    drawPairs(this.#parts.inputs, inputs, ([label, text]) =>
      h("div", {}, h("h3", {}, label), h("pre", { class: "input", dir: "auto", tabindex: "0", role: "region", "aria-label": label }, text)));
    const time = (moment) => (moment === null ? "—" : exact(moment));
    const facts = [
      ["Task", task._id], ["User", task.user_id], ["Created", time(task.created_at)], ["Started", time(task.started_at)],
      ["Finished", time(task.completed_at)], ["Deadline", time(task.deadline)], ["Attempts", String(task.attempts)], ...outputs,
    ];
    drawPairs(this.#parts.facts, facts, ([label, text]) => h("div", {}, h("dt", {}, label), h("dd", {}, text)));
  }

  #miss() {
    this.#missedAt = performance.now();
    const { notice, cancel, retry, progress, use } = this.#parts;
    const isOnItsWay = this.#actions.isOnItsWay(this.#id);
    if (this.#task === null) {
      setText(this.#parts.title, "There is no such task");
      setText(notice, "The server does not know a task with this address. Look whether the link is complete.");
    } else if (isOnItsWay) {
      setText(notice, "The server has lost this task. It is sent again, by itself.");
    } else {
      setText(notice, "The server does not know this task any more; this is what it was. Use it as a new task to have it done again.");
    }
    cancel.hidden = retry.hidden = true;
    use.hidden = this.#task === null || isOnItsWay;
    setAttribute(progress, "data-idle", true);
    notice.hidden = false;
  }

  async #change(verb) {
    const button = this.#parts[verb];
    const { notice } = this.#parts;
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    notice.hidden = true;
    const { deadline } = this.#task;
    let changed = null;
    try {
      const { body } = await insist(async (isAgain) => {
        if (isAgain && verb === "retry") {
          // A task that is done already would be started once more: it may be only the answer that was lost.
          const found = await call(`/tasks/get/${this.#id}`);
          if (found.body.deadline !== deadline) return found;
        }
        return call(`/tasks/${verb}/${this.#id}`, { method: "POST" });
      });
      changed = body;
      this.#changes++;
      this.#show(body);
      this.focus();
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Away)) throw error;
      // A conflict means that it has moved on meanwhile: the next look shows where.
      setText(notice, error.message);
      notice.hidden = error.status === 409;
      if (error.status === 409) this.refresh().catch(() => {}); // nobody needs to know twice that the server is away
    } finally {
      button.removeAttribute("aria-disabled");
      this.#actions.changed(changed);
    }
  }

  #use() {
    const task = this.#task;
    const kind = this.#kinds.find((one) => one.kind === task?.kind);
    if (!kind) return;
    this.#actions.use(task.kind, Object.fromEntries(inputsOf(task, kind)));
  }

  async #copyLink() {
    const isCopied = await copy(new URL(address({ task: this.#id, kind: null, status: null }), location.href).href);
    const words = isCopied ? "Link copied" : "Copy it from the address bar";
    announce(words);
    setText(this.#parts.link, words);
    setTimeout(() => setText(this.#parts.link, "Copy link"), 1500);
  }
}

/** What stands in an element that `drawPairs` has made. */
const drawn = new WeakMap();

/** Draw pairs anew only when they have changed: nothing that somebody selects or scrolls here is torn away. */
function drawPairs(element, pairs, draw) {
  const elements = pairs.map((pair, number) => {
    const text = JSON.stringify(pair);
    const known = element.children[number];
    if (known && drawn.get(known) === text) return known;
    const fresh = draw(pair);
    drawn.set(fresh, text);
    return fresh;
  });
  arrange(element, elements);
}

/** The inputs of a task, [name, value] each, in the order of its kind's form. */
function inputsOf(task, kind) {
  return Object.keys(kind?.inputs.properties ?? {}).map((name) => [name, task[name]]);
}

const COMMON = new Set([
  "_id", "user_id", "kind", "status", "created_at", "queued_at", "started_at", "completed_at", "deadline", "retry_at",
  "progress", "steps", "attempts", "error", "title",
]);

/** A schema for a task whose kind is no longer there: all that it has is shown. */
function unknown(task) {
  return { properties: Object.fromEntries(Object.keys(task).filter((name) => !COMMON.has(name)).map((name) => [name, {}])) };
}

async function insist(work) {
  for (let number = 1; ; number++) {
    try {
      return await work(number > 1);
    } catch (error) {
      if (!(error instanceof Away) || number === TRIES) throw error;
      await new Promise((done) => setTimeout(done, PAUSE * number));
    }
  }
}
