// What stands in the place of a task while none is open: what this is, and examples to click.

import { h } from "./dom.js";

/** Examples that are offered. */
const OFFERED = 3;

export class Welcome {
  element = h("div", { class: "welcome" });
  #drawn = "";

  /** `kinds` as the server names them, with whole examples in their schemas; `send` is called with {kind, inputs}. */
  draw(kinds, isNew, send) {
    const drawn = JSON.stringify([kinds, isNew]);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const examples = kinds.flatMap(({ kind, title, inputs }) =>
      (inputs.examples ?? []).map((example) => ({ kind, title, inputs: inOrder(example, inputs.properties) })));
    const cards = examples.slice(0, OFFERED).map((example) => {
      const [text, ...others] = Object.values(example.inputs).map(String);
      return h("li", {},
        h("button", { type: "button", class: "example", onclick: (event) => event.detail < 2 && send(example) },
          h("span", { class: "example-text" }, text),
          h("span", { class: "example-kind" }, [example.title, ...others].join(" · "))));
    });
    this.element.dataset.new = String(isNew);
    this.element.replaceChildren(
      h("h2", {}, isNew ? "Post a task and watch it being done" : "No task is open"),
      h("p", {}, isNew ? "Click one of these, or write your own in the form." : "Choose one from the list, write a new one, or try one of these."),
      h("ul", { class: "examples" }, cards),
    );
  }
}

/** The values of an example in the order of the form's fields. */
function inOrder(example, properties) {
  return Object.fromEntries(Object.keys(properties).filter((name) => name in example).map((name) => [name, example[name]]));
}
