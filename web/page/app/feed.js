// The tasks of one user that are loaded, newest first, kept as the server has them.

import { call } from "./api.js";
import { isFinished } from "./words.js";

/** Tasks of the first page, of further ones, and of how many pages one refresh asks at most. */
const PAGE = 50;
const DEEP_PAGE = 200;
const MAX_PAGES = 5;

/** Whether a task stands before another in the list: newer, or of the same moment and with the greater id. */
function isBefore(one, other) {
  return one.created_at === other.created_at ? one._id > other._id : one.created_at > other.created_at;
}

export class Feed {
  /** The loaded tasks (summaries), newest first; another list whenever one of them has changed. */
  tasks = [];
  /** Whether the first page has been read. */
  isLoaded = false;
  #query = "";
  #older = null;
  #reached;
  #puts = 0;
  #pages = new Map();
  #turn = Promise.resolve();
  #generation = 0;

  /** Show this user's tasks only, of this kind and status where they are not null. What was loaded is dropped. */
  show({ user, kind, status }) {
    const query = new URLSearchParams({ view: "summary", user_id: user });
    if (kind) query.set("kind", kind);
    if (status) query.set("status", status);
    if (query.toString() === this.#query) return;
    this.#query = query.toString();
    this.#generation++;
    this.#pages.clear();
    this.tasks = [];
    this.isLoaded = false;
    this.#older = null;
    this.#reached = undefined;
  }

  get hasOlder() {
    return this.#older !== null;
  }

  get isBusy() {
    return this.tasks.some((task) => !isFinished(task));
  }

  find(id) {
    return this.tasks.find((task) => task._id === id);
  }

  /** Show a task that has just been accepted, before the next refresh brings it. */
  put(task) {
    const query = new URLSearchParams(this.#query);
    const suits = ["user_id", "kind", "status"].every((name) => !query.has(name) || query.get(name) === task[name]);
    if (!suits || !this.isLoaded || this.find(task._id)) return;
    this.#puts++;
    const place = this.tasks.findIndex((other) => isBefore(task, other));
    const end = place === -1 ? this.tasks.length : place;
    this.tasks = [...this.tasks.slice(0, end), task, ...this.tasks.slice(end)];
  }

  /** Show what has become of a loaded task: one that is far down is not asked for once it is finished. */
  update(task) {
    if (!this.find(task._id)) return;
    this.#puts++;
    this.tasks = this.tasks.map((known) => (known._id === task._id ? { ...known, ...task, title: known.title } : known));
  }

  /** Bring what is loaded up to date: the newest tasks, and as far down as there are unfinished ones. */
  refresh() {
    return this.#inTurn(async (isCurrent) => {
      const newest = this.#reached;
      const pages = new Map();
      let above = null;
      let cursor = null;
      for (let number = 1; ; number++) {
        const puts = this.#puts;
        const page = await this.#read(cursor, cursor === null ? PAGE : DEEP_PAGE, pages);
        if (!isCurrent()) return;
        if (puts !== this.#puts) {
          number--; // asked before a task was put here: it would be taken away again
          continue;
        }
        const last = page.tasks.at(-1);
        this.#replace(page, above);
        this.isLoaded = true;
        if (page.next === null || this.tasks.at(-1) === last) this.#older = page.next;
        if (page.next === null) break;
        // New tasks down to here, and more of them below; or work that goes on below.
        const isGap = newest !== undefined && isBefore(last, newest);
        const hasWork = this.tasks.some((task) => !isFinished(task) && isBefore(last, task));
        if (!isGap && !hasWork) break;
        if (number === MAX_PAGES) {
          // What is below can't be kept up to date: it is loaded again when somebody scrolls there.
          this.tasks = this.tasks.filter((task) => !isBefore(last, task));
          this.#older = page.next;
          break;
        }
        above = last;
        cursor = page.next;
      }
      this.#pages = pages;
      this.#reached = this.tasks[0];
    });
  }

  /** Load the next older tasks. */
  more() {
    return this.#inTurn(async (isCurrent) => {
      if (this.#older === null) return;
      const above = this.tasks.at(-1) ?? null;
      const page = await this.#read(this.#older, PAGE, new Map());
      if (!isCurrent()) return;
      this.#replace(page, above);
      this.#older = page.next;
    });
  }

  async #read(cursor, limit, pages) {
    const path = `/tasks/get?${this.#query}&limit=${limit}${cursor === null ? "" : `&cursor=${cursor}`}`;
    const known = pages.get(path) ?? this.#pages.get(path);
    const answer = await call(path, { etag: known?.etag });
    const page = answer.status === 304 ? known : { etag: answer.etag, ...answer.body };
    pages.set(path, page);
    return page;
  }

  /** Put a page in the place of the tasks that it covers: from below `above` down to its own last one. */
  #replace(page, above) {
    const last = page.tasks.at(-1);
    const upper = above === null ? [] : this.tasks.filter((task) => !isBefore(above, task));
    const lower = page.next === null ? [] : this.tasks.filter((task) => isBefore(last, task));
    const tasks = [...upper, ...page.tasks, ...lower];
    const isSame = tasks.length === this.tasks.length && tasks.every((task, number) => task === this.tasks[number]);
    if (!isSame) this.tasks = tasks;
  }

  /** One after the other: two answers at once could put a task in the place of its own past. */
  #inTurn(work) {
    const generation = this.#generation;
    const isCurrent = () => generation === this.#generation;
    const done = this.#turn.then(() => (isCurrent() ? work(isCurrent) : undefined));
    this.#turn = done.catch(() => {});
    return done;
  }
}
