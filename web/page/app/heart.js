// When to ask the server again: about once a second while something is going on, seldom while nothing is, not at all in
// a hidden tab, and ever less often while the server is away.

import { Away, Refused } from "./api.js";

/** Milliseconds between two beats while tasks are unfinished; while nothing happens they grow up to the second. */
const BUSY = 1000;
const IDLE = 15_000;
/** Milliseconds after the first failure, and at most. */
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15_000;

export class Heart {
  #beat;
  #tell;
  #timer = null;
  #beating = false;
  #again = false;
  #pause = BUSY;
  #failures = 0;

  /** `beat` asks the server, and returns whether to go on quickly; `tell` hears how it went:
   * {state: "live" | "paused"} or {state: "away", why, at} (`at`: the moment of the next try, by performance.now). */
  constructor(beat, tell) {
    this.#beat = beat;
    this.#tell = tell;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#rest() : this.now()));
    addEventListener("online", () => this.now());
    addEventListener("offline", () => this.now());
    addEventListener("pageshow", (event) => event.persisted && this.now());
  }

  /** Beat at once, or right after the beat that is under way. */
  now() {
    clearTimeout(this.#timer);
    this.#pause = BUSY;
    if (this.#beating) this.#again = true;
    else this.#run();
  }

  #rest() {
    clearTimeout(this.#timer);
    this.#tell({ state: "paused" });
  }

  async #run() {
    this.#beating = true;
    this.#again = false;
    let next;
    try {
      const isBusy = await this.#beat();
      this.#failures = 0;
      next = this.#pause = isBusy ? BUSY : Math.min(IDLE, this.#pause * 1.5);
      this.#tell({ state: "live" });
    } catch (error) {
      const isKnown = error instanceof Away || error instanceof Refused;
      if (!isKnown) console.error(error);
      next = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#failures++) * (0.75 + Math.random() / 2);
      next = Math.max(next, (error.after ?? 0) * 1000);
      this.#tell({ state: "away", why: isKnown ? error.message : "This page has a fault.", at: performance.now() + next });
    } finally {
      this.#beating = false;
    }
    if (document.hidden) this.#rest();
    else if (this.#again) this.#run();
    else this.#timer = setTimeout(() => this.#run(), next);
  }
}
