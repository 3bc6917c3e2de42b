// A form drawn from a kind's inputs, which are a JSON Schema object: one field a property.

import { h, setText } from "./dom.js";
import { titleOf } from "./words.js";

/** A text up to this length is entered on one line. */
const LINE = 200;
/** From this part of its limit on, a text shows how long it is. */
const CLOSE = 0.8;

export class Form {
  /** The element that holds the fields. */
  element = h("div", { class: "fields" });
  #fields = [];

  /** `prefix` makes the ids of the fields unique on the page; `changed` is called when somebody has changed one. */
  constructor(schema, prefix, changed = () => {}) {
    const required = new Set(schema.required ?? []);
    for (const [name, property] of Object.entries(schema.properties ?? {})) {
      const field = new Field(name, resolve(property, schema), required.has(name), `${prefix}-${name}`);
      field.control.addEventListener("input", changed);
      this.#fields.push(field);
      this.element.append(field.element);
    }
  }

  /** The inputs as they are entered: {inputs} to send, or {errors: [{field, message}]}. */
  read() {
    const inputs = Object.create(null);
    const errors = [];
    for (const field of this.#fields) {
      try {
        const value = field.read();
        if (value !== undefined) inputs[field.name] = value;
      } catch (error) {
        errors.push({ field: field.name, message: error.message });
      }
    }
    return errors.length ? { errors } : { inputs };
  }

  /** Enter these inputs; what they do not name gets its default. */
  fill(inputs) {
    for (const field of this.#fields) field.fill(Object.hasOwn(inputs, field.name) ? inputs[field.name] : undefined);
  }

  /** What is entered, as texts and booleans, to be filled in again by `restore`. */
  draft() {
    return Object.fromEntries(this.#fields.map((field) => [field.name, field.raw]));
  }

  restore(draft) {
    for (const field of this.#fields) if (Object.hasOwn(draft, field.name)) field.raw = draft[field.name];
  }

  /** After sending: the long texts are empty again, the rest stays for the next task. */
  clear() {
    for (const field of this.#fields) if (field.isText) field.fill(undefined);
  }

  /** What the task will be called. */
  get title() {
    return titleOf(this.#fields.map((field) => field.raw));
  }

  /** Show errors beside their fields, and go to the first. Returns those that belong to no field. */
  refuse(errors) {
    const left = [];
    for (const field of this.#fields) field.refuse("");
    for (const error of errors) {
      const field = this.#fields.find(({ name }) => error.field === name || error.field.startsWith(`${name}.`));
      if (field) field.refuse(error.message);
      else left.push(error);
    }
    this.#fields.find((field) => field.isRefused)?.control.focus();
    return left;
  }

  focus() {
    this.#fields[0]?.control.focus();
  }
}

/** One input: its label, its control, its hint and its error. */
class Field {
  constructor(name, schema, isRequired, id) {
    this.name = name;
    this.schema = schema;
    this.isRequired = isRequired;
    this.kind = kindOf(schema);
    this.isText = this.kind === "text" || this.kind === "json";
    this.control = this.#control(id);
    this.error = h("p", { class: "field-error", id: `${id}-error` });
    this.count = h("p", { class: "field-count" });
    const label = h("label", { for: id }, schema.title ?? name.replaceAll("_", " "));
    const isOptional = !isRequired && (schema.default ?? null) === null;
    if (isOptional) label.append(" ", h("span", { class: "optional" }, "optional"));
    const hint = schema.description ? h("p", { class: "hint", id: `${id}-hint` }, schema.description) : null;
    const head = h("div", { class: "field-head" }, label, hint);
    const suggestions = this.#suggestions(id);
    this.control.setAttribute("aria-describedby", [hint && `${id}-hint`, `${id}-error`].filter(Boolean).join(" "));
    this.control.addEventListener("input", () => {
      this.refuse("");
      this.#measure();
    });
    const parts = this.kind === "boolean" ? [this.control, head] : [head, this.control];
    this.element = h("div", { class: `field field-${this.kind}` }, parts, suggestions, this.error, this.count);
    this.fill(undefined);
  }

  /** What stands in the control: a text or a boolean. */
  get raw() {
    return this.kind === "boolean" ? this.control.checked : this.control.value;
  }

  set raw(value) {
    if (this.kind === "boolean") this.control.checked = value === true;
    else this.control.value = value ?? "";
    this.#measure();
  }

  get isRefused() {
    return this.error.textContent !== "";
  }

  fill(value) {
    this.raw = this.#written(value);
    this.refuse("");
  }

  /** The value to send; undefined to leave it out. Throws an Error with what is wrong. */
  read() {
    if (this.kind === "boolean") {
      const isLeft = !this.isRequired && this.schema.default === undefined && !this.control.checked;
      return isLeft ? undefined : this.control.checked;
    }
    if (this.control.validity.badInput) throw new Error("must be a number"); // its text can't be read then
    const text = this.control.value;
    if (text.trim() === "") {
      if (this.isRequired) throw new Error("must not be blank");
      return undefined;
    }
    if (this.kind === "number") {
      const number = Number(text);
      if (!Number.isFinite(number)) throw new Error("must be a number");
      return number;
    }
    if (this.kind === "choice") return this.schema.enum.find((choice) => String(choice) === text);
    if (this.kind !== "json") return text;
    try {
      return JSON.parse(text);
    } catch {
      throw new Error("must be valid JSON");
    }
  }

  refuse(message) {
    setText(this.error, message);
    this.control.setAttribute("aria-invalid", String(message !== ""));
  }

  #written(value) {
    const given = value === undefined || value === null ? this.schema.default : value;
    if (this.kind === "boolean") return given === true;
    if (given === undefined || given === null) return "";
    return this.kind === "json" ? JSON.stringify(given, null, 2) : String(given);
  }

  #measure() {
    const limit = this.schema.maxLength;
    const length = this.kind === "boolean" || !limit ? 0 : [...this.control.value].length;
    setText(this.count, limit && length > limit * CLOSE ? `${length.toLocaleString()} of ${limit.toLocaleString()} characters` : "");
    this.count.classList.toggle("too-long", Boolean(limit) && length > limit);
  }

  #control(id) {
    const { schema } = this;
    const common = { id, "aria-required": this.isRequired ? "true" : null, spellcheck: this.kind === "text" ? null : "false" };
    const [example] = schema.examples ?? [];
    const placeholder = example === undefined ? null : this.kind === "json" ? JSON.stringify(example) : String(example);
    switch (this.kind) {
      case "text":
      case "json":
        return h("textarea", { ...common, rows: 3, placeholder });
      case "choice": {
        const blank = this.isRequired || (schema.default ?? null) !== null ? [] : [h("option", { value: "" }, "—")];
        return h("select", common, blank, schema.enum.map((choice) => h("option", { value: String(choice) }, String(choice))));
      }
      case "boolean":
        return h("input", { ...common, type: "checkbox" });
      case "number":
        return h("input", {
          ...common, type: "number", inputmode: schema.type === "integer" ? "numeric" : "decimal", placeholder,
          step: schema.multipleOf ?? (schema.type === "integer" ? 1 : "any"),
          min: schema.minimum ?? schema.exclusiveMinimum, max: schema.maximum ?? schema.exclusiveMaximum,
        });
      default:
        return h("input", {
          ...common, type: "text", placeholder, autocomplete: "off",
          list: schema.examples?.length > 1 ? `${id}-suggestions` : null,
        });
    }
  }

  #suggestions(id) {
    if (this.kind !== "line" || !(this.schema.examples?.length > 1)) return null;
    return h("datalist", { id: `${id}-suggestions` }, this.schema.examples.map((value) => h("option", { value })));
  }
}

/** How a value is entered: line, text, number, boolean, choice, or as JSON whatever else it is. */
function kindOf(schema) {
  if (schema.enum) return "choice";
  if (schema.type === "boolean") return "boolean";
  if (schema.type === "integer" || schema.type === "number") return "number";
  if (schema.type === "string") return (schema.maxLength ?? Infinity) <= LINE ? "line" : "text";
  return "json";
}

/** A property with its references followed; one that may be null is shown as what it is otherwise. */
function resolve(property, root) {
  const { $ref, anyOf, allOf, const: constant, ...rest } = property;
  if ($ref) return resolve({ ...root.$defs?.[$ref.split("/").at(-1)], ...rest }, root);
  if (allOf?.length === 1) return resolve({ ...allOf[0], ...rest }, root);
  const others = anyOf?.filter((one) => one.type !== "null");
  if (others?.length === 1) return resolve({ ...others[0], ...rest }, root);
  return constant === undefined ? property : { ...rest, enum: [constant] };
}
