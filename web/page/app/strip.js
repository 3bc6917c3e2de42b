// What goes on in all: tasks by status (which filter the list, too), engines, stand-ins, the connection.

import { Resource } from "./api.js";
import { announce, h, icon, setAttribute, setText } from "./dom.js";
import { address, go, isPlainClick, route } from "./route.js";
import { STATUSES, wordFor } from "./words.js";

/** A count of the server goes up to this, and then means "or more". */
const MAX_COUNT = 10_000;

export class Strip {
  #resource = null;
  #chips = new Map();
  #engines = document.getElementById("engines");
  #standIn = document.getElementById("stand-in");

  constructor() {
    for (const status of [null, ...STATUSES]) {
      const count = h("span", { class: "count" }, "–");
      const words = status === null ? "All" : wordFor(status);
      const link = h("a", { class: `chip chip-${status ?? "all"}` }, status && icon(status), h("span", {}, words), " ", count);
      link.addEventListener("click", (event) => {
        if (!isPlainClick(event)) return;
        event.preventDefault();
        go({ status });
      });
      this.#chips.set(status, { link, count });
    }
    document.getElementById("strip").append(...[...this.#chips.values()].map(({ link }) => link));
    this.onRoute();
  }

  /** Count this user's tasks. */
  show(user) {
    this.#resource = new Resource(`/tasks/get/overview?${new URLSearchParams({ user_id: user })}`);
  }

  onRoute() {
    const { status: chosen } = route();
    for (const [status, { link }] of this.#chips) {
      setAttribute(link, "aria-current", status === chosen ? "true" : null);
      setAttribute(link, "href", address({ status }));
    }
  }

  /** The number of this user's tasks, or null while it is not known. */
  get total() {
    const counts = this.#resource?.body?.tasks;
    return counts ? STATUSES.reduce((sum, status) => sum + counts[status], 0) : null;
  }

  async refresh() {
    const resource = this.#resource;
    if (!(await resource.read()) || resource !== this.#resource) return;
    const { tasks, engines, stand_ins: standIns } = resource.body;
    for (const [status, { count }] of this.#chips) {
      const number = status === null ? this.total : tasks[status];
      const isMore = status === null ? STATUSES.some((one) => tasks[one] >= MAX_COUNT) : number >= MAX_COUNT;
      setText(count, `${number.toLocaleString()}${isMore ? "+" : ""}`);
    }
    setText(this.#engines, engines === 0 ? "Engines idle" : `${engines} ${engines === 1 ? "engine" : "engines"} at work`);
    this.#engines.classList.toggle("active", engines > 0);
    const stands = Object.entries(standIns);
    this.#standIn.hidden = stands.length === 0;
    setText(this.#standIn, "model" in standIns ? "Offline model" : "Stand-ins");
    setAttribute(this.#standIn, "title", stands.map(([part, words]) => `${part}: ${words}`).join("\n"));
  }
}

/** The connection to the server, in words. `retry` is called when somebody does not want to wait. */
export class Connection {
  #element = document.getElementById("connection");
  #words = document.getElementById("connection-words");
  #button = document.getElementById("connection-now");
  #state = { state: "starting" };

  constructor(retry) {
    this.#button.addEventListener("click", retry);
    setInterval(() => this.#show(), 1000);
  }

  show(state) {
    const wasAway = this.#state.state === "away";
    if (state.state === "away" && !wasAway) announce(`${state.why} The page tries again by itself.`);
    if (state.state === "live" && wasAway) announce("Connected again");
    this.#state = state;
    this.#show();
  }

  #show() {
    const { state, why, at } = this.#state;
    const left = Math.max(0, Math.ceil((at - performance.now()) / 1000));
    const words = {
      starting: "Connecting…",
      live: "Connected",
      paused: "Paused",
      away: `${why} ${left ? `Next try in ${left} s.` : "Trying…"}`,
    };
    setText(this.#words, words[state]);
    setAttribute(this.#element, "data-state", state);
    this.#button.hidden = state !== "away";
  }
}
