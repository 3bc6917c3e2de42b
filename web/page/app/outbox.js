// Tasks on their way to the server. Each carries an Idempotency-Key and is kept on this device until the server has it,
// and until it is done there: sent twice it is still one task, and one that a server has forgotten is sent again.

import { Away, Refused, call } from "./api.js";
import { isFinished } from "./feed.js";
import { forget, names, onElsewhere, recall, remember } from "./storage.js";

/** Milliseconds until the first repetition, at most, and between two looks for a task that is not in the list. */
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15_000;
const LOOK_PAUSE = 3000;

const PREFIX = "outbox.";

export class Outbox {
  #items = new Map();
  #changed;
  #accepted;
  #failures = 0;
  #timer = null;
  #sending = null;
  #looked = 0;

  /** `changed` is called when an item has come, moved on or gone; `accepted` with an item and its task. */
  constructor(changed, accepted) {
    this.#changed = changed;
    this.#accepted = accepted;
    for (const name of names(PREFIX)) this.#take(name);
    onElsewhere((name) => {
      if (!name.startsWith(PREFIX)) return;
      this.#take(name);
      this.#changed();
    });
  }

  /** What the list shows: items that the server does not have yet, newest first. Each is {key, user, kind, inputs,
   * title, at, state: "waiting" | "refused", problem}. */
  waiting(user) {
    const shown = [...this.#items.values()].filter((item) => item.user === user && item.state !== "accepted");
    return shown.sort((one, other) => other.at - one.at);
  }

  get isBusy() {
    return [...this.#items.values()].some((item) => item.state === "waiting");
  }

  /** Send a task, now and until it has arrived. Returns the item. */
  add({ user, kind, inputs, title }) {
    const item = { key: newKey(), user, kind, inputs, title, at: Date.now(), state: "waiting" };
    this.#keep(item);
    return item;
  }

  drop(item) {
    this.#items.delete(item.key);
    forget(PREFIX + item.key);
    this.#changed();
  }

  /** Try to send what waits, oldest first; one that fails holds those behind it, so that they keep their order. */
  flush() {
    clearTimeout(this.#timer);
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = null));
    return this.#sending;
  }

  async #sendAll() {
    for (;;) {
      const item = [...this.#items.values()].filter((one) => one.state === "waiting").sort((a, b) => a.at - b.at)[0];
      if (item === undefined) return;
      try {
        const { body } = await call("/tasks/add", {
          method: "POST",
          body: { ...item.inputs, user_id: item.user, kind: item.kind },
          headers: { "Idempotency-Key": item.key },
        });
        this.#failures = 0;
        Object.assign(item, { state: "accepted", id: body._id, why: undefined });
        this.#accepted(item, body);
      } catch (error) {
        if (error instanceof Refused) {
          Object.assign(item, { state: "refused", problem: { detail: error.message, errors: error.errors } });
        } else if (error instanceof Away) {
          item.why = error.message;
          const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#failures++) * (0.75 + Math.random() / 2);
          this.#timer = setTimeout(() => this.flush(), Math.max(pause, error.after * 1000));
          this.#changed();
          return;
        } else throw error;
      }
      this.#keep(item);
    }
  }

  /** Let go of what is done, and look for what the list does not show: what the server no longer knows (one that keeps
   * its tasks in memory, and was started again) is sent again. */
  async follow(find) {
    const accepted = [...this.#items.values()].filter((item) => item.state === "accepted");
    const missing = [];
    for (const item of accepted) {
      const task = find(item.id);
      if (task === undefined) missing.push(item);
      else if (isFinished(task)) this.drop(item);
      else item.missed = 0;
    }
    if (missing.length === 0 || Date.now() - this.#looked < LOOK_PAUSE) return;
    this.#looked = Date.now();
    for (const item of missing.slice(0, 10)) {
      try {
        const { body } = await call(`/tasks/get/${item.id}`);
        if (isFinished(body)) this.drop(item);
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 404) return;
        item.missed = (item.missed ?? 0) + 1;
        if (item.missed > 1) this.#keep(Object.assign(item, { state: "waiting", missed: 0 }));
      }
    }
    if (this.isBusy) await this.flush();
  }

  #take(name) {
    const item = recall(name);
    const key = name.slice(PREFIX.length);
    if (item === null || typeof item !== "object" || item.key !== key) this.#items.delete(key);
    else this.#items.set(key, item);
  }

  #keep(item) {
    this.#items.set(item.key, item);
    remember(PREFIX + item.key, item);
    this.#changed();
  }
}

/** 128 random bits. (crypto.randomUUID is only there under https.) */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
