// A text in a programming language, with line numbers and colours. It may grow while it is shown: lines that have not
// changed are not touched, so that what somebody has selected stays selected.

import { arrange, h } from "./dom.js";

/** Characters up to which a text is coloured. */
const COLOURED = 100_000;

/** Other names that people and kinds use, by the names of highlight.js. */
const NAMES = {
  "c++": "cpp", "c#": "csharp", cs: "csharp", golang: "go", html: "xml", js: "javascript", jsx: "javascript", kt: "kotlin",
  node: "javascript", "node.js": "javascript", nodejs: "javascript", ps1: "powershell", py: "python", python3: "python",
  rb: "ruby", rs: "rust", sh: "bash", shell: "bash", svg: "xml", toml: "ini", ts: "typescript", tsx: "typescript",
  yml: "yaml", zsh: "bash",
};

const EXTENSIONS = {
  bash: "sh", c: "c", cpp: "cpp", csharp: "cs", css: "css", dart: "dart", diff: "diff", elixir: "ex", go: "go",
  haskell: "hs", ini: "ini", java: "java", javascript: "js", json: "json", kotlin: "kt", lua: "lua", makefile: "mk",
  markdown: "md", perl: "pl", php: "php", powershell: "ps1", python: "py", r: "r", ruby: "rb", rust: "rs", scala: "scala",
  sql: "sql", swift: "swift", typescript: "ts", xml: "xml", yaml: "yaml",
};

const loading = new Map();
let core = null;

/** The name by which a language is coloured, or null. */
function grammarOf(language) {
  const name = String(language ?? "").trim().toLowerCase();
  const known = NAMES[name] ?? name;
  return Object.hasOwn(EXTENSIONS, known) ? known : null;
}

/** The extension of a file in this language. */
export function extensionOf(language) {
  const asked = String(language ?? "").trim().toLowerCase();
  if (asked === "html" || asked === "svg" || asked === "toml" || asked === "jsx" || asked === "tsx") return asked;
  return EXTENSIONS[grammarOf(language)] ?? "txt";
}

/** Load what colours a language, once. Returns the highlighter, or null where there is none for it. */
function load(grammar) {
  if (grammar === null) return Promise.resolve(null);
  if (!loading.has(grammar)) {
    const path = `../vendor/highlight`;
    const both = Promise.all([import(`${path}/core.min.js`), import(`${path}/languages/${grammar}.min.js`)]).then(
      ([{ default: highlighter }, { default: language }]) => {
        core = highlighter;
        core.registerLanguage(grammar, language);
        return core;
      },
    );
    loading.set(grammar, both.catch(() => (loading.delete(grammar), null))); // without colours, and tried again later
  }
  return loading.get(grammar);
}

export class Source {
  #lines = [];
  #text = null;
  #grammar = null;
  #code = h("code", {});
  /** The element to show. */
  element;

  constructor(label) {
    this.element = h("pre", { class: "source", tabindex: "0", role: "region", "aria-label": label }, this.#code);
  }

  /** The text that is shown. */
  get text() {
    return this.#text ?? "";
  }

  show(text, language) {
    const grammar = grammarOf(language);
    if (text === this.#text && grammar === this.#grammar) return;
    this.#text = text;
    this.#grammar = grammar;
    const isLoaded = grammar !== null && core?.getLanguage(grammar);
    this.#draw(isLoaded && text.length <= COLOURED ? coloured(text, grammar) : plain(text));
    if (isLoaded || grammar === null || text.length > COLOURED) return;
    load(grammar).then((highlighter) => {
      if (highlighter && this.#text === text && this.#grammar === grammar) this.#draw(coloured(text, grammar));
    });
  }

  #draw(lines) {
    this.#lines.length = Math.min(this.#lines.length, lines.length);
    lines.forEach((parts, number) => {
      const drawn = JSON.stringify(parts);
      const known = this.#lines[number];
      if (known?.drawn === drawn) return;
      const element = known?.element ?? h("span", { class: "line" });
      element.replaceChildren(...parts.map(([words, names]) => (names ? h("span", { class: names }, words) : words)));
      this.#lines[number] = { drawn, element };
    });
    arrange(this.#code, this.#lines.map(({ element }) => element));
  }
}

/** Lines, each a list of [text, class names]; every line but the last ends with its line break. */
function plain(text) {
  return text.split(/(?<=\n)/).map((line) => [[line, ""]]);
}

/** The same, coloured. highlight.js gives a tree of scopes beside its HTML; the tree needs no HTML to be parsed. */
function coloured(text, language) {
  const { _emitter: emitter } = core.highlight(text, { language, ignoreIllegals: true });
  const lines = [[]];
  const walk = (node, names) => {
    if (typeof node === "string") {
      node.split(/(?<=\n)/).forEach((part) => {
        if (lines.at(-1).at(-1)?.[0].endsWith("\n")) lines.push([]);
        if (part !== "") lines.at(-1).push([part, names]);
      });
      return;
    }
    const scope = node.scope?.startsWith("language:") ? undefined : node.scope;
    const inner = scope ? `${names} hl-${scope.split(".")[0]}`.trim() : names;
    for (const child of node.children) walk(child, inner);
  };
  walk(emitter.rootNode, "");
  return lines;
}
