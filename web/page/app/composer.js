// The form for a new task: a tab a kind, drawn from what the server says about its kinds.

import { announce, h, setText } from "./dom.js";
import { Form } from "./form.js";
import { recall, remember } from "./storage.js";

/** Milliseconds that the form waits for the server's word before it is free for the next task. */
const WAIT = 1200;

const DRAFT = "draft.";
const LAST_KIND = "kind";
const isMac = /Mac|iP(hone|ad)/.test(navigator.platform);

export class Composer {
  #tabs = document.getElementById("kinds");
  #panel = document.getElementById("composer");
  #element = this.#panel.querySelector("form");
  #drawn = "";
  #forms = new Map();
  #chosen = null;
  #problem = h("p", { class: "notice notice-error", role: "alert", hidden: true });
  #button = h("button", { type: "submit", class: "primary" }, "Send");
  #send;
  #isSending = false;

  /** `send({kind, inputs, title})` gives a task to the outbox; returns {tried, drop}: a promise of its item, once it has
   * been tried, and what takes it out again. */
  constructor(send) {
    this.#send = send;
    this.#element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.metaKey || event.ctrlKey) && !event.isComposing) {
        event.preventDefault();
        this.#submit();
      }
    });
    this.#tabs.addEventListener("keydown", (event) => this.#onTabKey(event));
  }

  /** Draw the forms of these kinds. What is entered stays, also when the server's kinds have changed. */
  draw(kinds) {
    const drawn = JSON.stringify(kinds);
    if (drawn === this.#drawn) return;
    this.#drawn = "";
    this.#forms.clear();
    for (const { kind, inputs } of kinds) {
      const form = new Form(inputs, `input-${kind}`, () => remember(DRAFT + kind, form.draft()));
      const draft = recall(DRAFT + kind);
      if (draft !== null && typeof draft === "object") form.restore(draft);
      this.#forms.set(kind, form);
    }
    this.#tabs.hidden = kinds.length < 2;
    this.#tabs.replaceChildren(
      ...kinds.map(({ kind, title }) =>
        h("button", { type: "button", role: "tab", id: `tab-${kind}`, "aria-controls": "composer", onclick: () => this.#choose(kind) }, title)),
    );
    const known = [this.#chosen, recall(LAST_KIND)].find((kind) => this.#forms.has(kind));
    this.#choose(known ?? kinds[0]?.kind ?? null);
    this.#drawn = drawn;
  }

  /** Enter the inputs of a task, to be changed and sent. */
  use(kind, inputs) {
    if (!this.#forms.has(kind)) return;
    this.#choose(kind);
    this.#form.fill(inputs);
    this.#save();
    this.#refuse("");
    this.#form.focus();
  }

  get #form() {
    return this.#forms.get(this.#chosen);
  }

  #save() {
    remember(DRAFT + this.#chosen, this.#form.draft());
  }

  #choose(kind) {
    const isChange = this.#chosen !== null && this.#chosen !== kind;
    this.#chosen = kind;
    for (const tab of this.#tabs.children) {
      const isChosen = tab.id === `tab-${kind}`;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    }
    if (kind === null) return;
    if (isChange) remember(LAST_KIND, kind);
    if (!this.#tabs.hidden) {
      this.#panel.setAttribute("role", "tabpanel");
      this.#panel.setAttribute("aria-labelledby", `tab-${kind}`);
    }
    const keys = h("span", { class: "keys", "aria-hidden": "true" }, h("kbd", {}, isMac ? "⌘" : "Ctrl"), " ", h("kbd", {}, "Enter"));
    this.#element.replaceChildren(this.#form.element, this.#problem, h("div", { class: "actions" }, keys, this.#button));
    this.#refuse("");
  }

  /** Arrow keys move between tabs (WAI-ARIA, tabs pattern). */
  #onTabKey(event) {
    const tabs = [...this.#tabs.children];
    const place = tabs.indexOf(document.activeElement);
    const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined || place === -1) return;
    event.preventDefault();
    const tab = tabs.at(next % tabs.length);
    tab.click();
    tab.focus();
  }

  async #submit() {
    if (this.#isSending || !this.#form) return;
    const [form, kind] = [this.#form, this.#chosen];
    const { inputs, errors } = form.read();
    this.#refuse("");
    if (errors) return form.refuse(errors);
    form.refuse([]);
    const sent = form.draft();
    const { tried, drop } = this.#send({ kind, inputs, title: form.title });
    this.#setSending(true);
    let item;
    try {
      item = await Promise.race([tried, new Promise((done) => setTimeout(done, WAIT))]);
    } finally {
      this.#setSending(false);
    }
    if (item?.state === "refused") {
      drop();
      const left = form.refuse(item.problem.errors);
      const words = left.length ? left.map(({ field, message }) => `${field}: ${message}`).join("; ") : item.problem.detail;
      if (left.length || item.problem.errors.length === 0) this.#refuse(words);
      else announce(item.problem.detail);
      return;
    }
    // What was typed while the answer was under way belongs to the next task.
    if (JSON.stringify(sent) === JSON.stringify(form.draft())) form.clear();
    remember(DRAFT + kind, form.draft());
  }

  /** While it sends, the button says so, and keeps the focus. */
  #setSending(isSending) {
    this.#isSending = isSending;
    this.#button.setAttribute("aria-disabled", String(isSending));
  }

  #refuse(message) {
    setText(this.#problem, message);
    this.#problem.hidden = message === "";
  }
}
