// Tasks on their way to the server. Each carries an Idempotency-Key and is kept on this device until the server has it,
// and until it is done there: sent twice it is still one task, and one that a server has forgotten is sent again.

import { Away, Refused, call } from "./api.js";
import { forget, names, onElsewhere, recall, remember } from "./storage.js";
import { now } from "./times.js";
import { isFinished } from "./words.js";

/** Milliseconds until the first repetition, at most, and between two looks for tasks that are not in the list. */
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15_000;
const LOOK_PAUSE = 3000;
/** Tasks that are looked for at once. */
const LOOKS = 10;

/** What a date can be, in milliseconds (ECMAScript). */
const LAST_MOMENT = 8.64e15;

const NOT_HELD = { why: undefined, until: 0 };

const PREFIX = "outbox.";

/** An item is {key, user, kind, inputs, title, at, state}: `waiting` to be accepted; `accepted`, with its `id`, until it
 * is done; `refused`, with the server's `problem`; or `unwanted`: discarded, but it may have arrived, so that it is sent
 * once more and cancelled. */
const STATES = new Set(["waiting", "accepted", "refused", "unwanted"]);

export class Outbox {
  #items = new Map();
  #unsaved = new Set();
  #trials = new Map();
  #changed;
  #accepted;
  #sending = null;
  #held = NOT_HELD;
  #looked = -Infinity;
  #timer = null;

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
    // A browser that can't keep anything for this page must not close it on a task that has not arrived.
    addEventListener("beforeunload", (event) => {
      const isLeft = [...this.#unsaved].some((key) => this.#items.get(key)?.state === "waiting");
      if (isLeft) event.preventDefault();
    });
  }

  /** What the list shows: items that the server does not have yet, newest first. `why` says what they wait for. */
  waiting(user) {
    const shown = [...this.#items.values()].filter(({ user: owner, state, missed }) =>
      owner === user && (state === "waiting" || state === "refused" || (state === "accepted" && missed > 0)));
    const whyOf = ({ key, state }) => (state === "accepted" ? "The server has lost it." : this.#trials.get(key)?.why ?? this.#held.why);
    return shown.sort((one, other) => other.at - one.at).map((item) => ({ ...item, why: whyOf(item) }));
  }

  get isBusy() {
    return this.#due(Infinity).length > 0;
  }

  /** Send a task, now and until it has arrived. Returns its key. */
  add({ user, kind, inputs, title }) {
    const item = { key: newKey(), user, kind, inputs, title, at: now(), state: "waiting" };
    this.#keep(item);
    return item.key;
  }

  /** Whether a task is still looked after here: not known to be done, and sent again if the server has lost it. */
  holds(id) {
    return [...this.#items.values()].some((item) => item.id === id && item.state !== "unwanted");
  }

  /** What has become of an item: undefined once it is gone. */
  get(key) {
    return this.#items.get(key);
  }

  /** Discard an item. One that may have arrived is cancelled. */
  drop(key) {
    const item = this.#items.get(key);
    if (item?.state === "waiting" && this.#trials.has(key)) this.#keep({ ...item, state: "unwanted" });
    else this.#remove(key);
  }

  /** Send what waits, oldest first. */
  flush() {
    clearTimeout(this.#timer);
    this.#held = NOT_HELD;
    this.#trials.forEach((trial) => (trial.notBefore = 0));
    return this.#send();
  }

  /** The same, but what has failed keeps its pause. */
  resume() {
    return performance.now() < this.#held.until ? Promise.resolve() : this.#send();
  }

  #send() {
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = null));
    return this.#sending;
  }

  async #sendAll() {
    for (let item; (item = this.#due(performance.now())[0]); ) {
      const trial = this.#trials.get(item.key) ?? { number: 0 };
      this.#trials.set(item.key, trial);
      try {
        await this.#deliver(item);
        this.#trials.delete(item.key);
        this.#held = NOT_HELD;
      } catch (error) {
        if (!(error instanceof Away)) throw error;
        const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** trial.number++) * (0.75 + Math.random() / 2);
        trial.why = error.message;
        trial.notBefore = performance.now() + Math.max(pause, error.after * 1000);
        // Nobody answers: the others can wait as well. An answer may be about this one only.
        if (!error.isAnswer) this.#held = { why: error.message, until: trial.notBefore };
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.resume(), trial.notBefore - performance.now());
        this.#changed();
        if (!error.isAnswer) return;
      }
    }
  }

  async #deliver(item) {
    try {
      const { body } = await call("/tasks/add", {
        method: "POST",
        body: { ...item.inputs, user_id: item.user, kind: item.kind },
        headers: { "Idempotency-Key": item.key },
      });
      const state = this.#items.get(item.key)?.state; // another tab may have been faster
      if (state === "waiting") {
        this.#keep({ ...item, state: "accepted", id: body._id });
        this.#accepted(item, body);
      }
      if (state === "unwanted") await call(`/tasks/cancel/${body._id}`, { method: "POST" });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (this.#items.get(item.key)?.state === "waiting") {
        this.#keep({ ...item, state: "refused", problem: { detail: error.message, errors: error.errors } });
      }
    }
    if (this.#items.get(item.key)?.state === "unwanted") this.#remove(item.key);
  }

  /** Let go of what is done, and look for what the list does not show: what the server no longer knows (one that keeps
   * its tasks in memory, and was started again) is sent again. */
  async follow(find) {
    const missing = [];
    for (const item of [...this.#items.values()].filter(({ state }) => state === "accepted")) {
      const task = find(item.id);
      if (task === undefined) missing.push(item);
      else if (isFinished(task)) this.#remove(item.key);
      else item.missed = 0;
    }
    if (missing.length === 0 || performance.now() - this.#looked < LOOK_PAUSE) return;
    this.#looked = performance.now();
    const looks = missing.sort((one, other) => (one.looked ?? 0) - (other.looked ?? 0)).slice(0, LOOKS);
    await Promise.all(looks.map((item) => this.#look(item)));
  }

  async #look(item) {
    item.looked = this.#looked;
    try {
      const { body } = await call(`/tasks/get/${item.id}`);
      item.missed = 0;
      if (isFinished(body)) this.#remove(item.key);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) return;
      item.missed = (item.missed ?? 0) + 1; // once may be a task that only the queue has, and the database not yet
      if (item.missed > 1) this.#keep({ ...item, state: "waiting", missed: 0 });
      else this.#changed();
    }
  }

  /** What is to be sent by this moment, oldest first. */
  #due(moment) {
    const due = [...this.#items.values()].filter(({ key, state }) =>
      ["waiting", "unwanted"].includes(state) && (this.#trials.get(key)?.notBefore ?? 0) <= moment);
    return due.sort((one, other) => one.at - other.at);
  }

  /** Read an item from storage. One that makes no sense (somebody else wrote it) is left alone. */
  #take(name) {
    const key = name.slice(PREFIX.length);
    const item = recall(name);
    const texts = [item?.user, item?.kind, item?.title, item?.state === "accepted" ? item.id : ""];
    const isItem = item?.key === key && STATES.has(item.state) && Math.abs(item.at) <= LAST_MOMENT
      && texts.every((text) => typeof text === "string") && item.inputs !== null && typeof item.inputs === "object"
      && (item.state !== "refused" || Array.isArray(item.problem?.errors));
    if (isItem) this.#items.set(key, item);
    else this.#items.delete(key);
  }

  #keep(item) {
    this.#items.set(item.key, item);
    if (remember(PREFIX + item.key, item)) this.#unsaved.delete(item.key);
    else this.#unsaved.add(item.key);
    this.#changed();
  }

  #remove(key) {
    this.#items.delete(key);
    this.#trials.delete(key);
    this.#unsaved.delete(key);
    forget(PREFIX + key);
    this.#changed();
  }
}

/** 128 random bits. (crypto.randomUUID is only there under https.) */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
