// Who is at work here: a name that is chosen once and remembered on this device. Signing in will go here.

import { call, Refused } from "./api.js";
import { onElsewhere, recall, remember } from "./storage.js";

const NAME = "user";
const MAX_LENGTH = 128;

let current = null;
let tell = () => {};

/** The user's id. Somebody new is given one, and can change it. */
export function user() {
  if (current === null) {
    const known = recall(NAME);
    const isName = typeof known === "string" && known.trim() !== "" && [...known].length <= MAX_LENGTH;
    current = isName ? known : newName();
    remember(NAME, current);
  }
  return current;
}

/** Wire the button and its dialog; `changed` is called with the new name. */
export function wireIdentity(changed) {
  const dialog = document.getElementById("identity");
  const field = document.getElementById("identity-name");
  const error = document.getElementById("identity-error");
  tell = changed;
  show();
  document.getElementById("who").addEventListener("click", () => {
    field.value = user();
    refuse("");
    dialog.showModal();
    field.select();
  });
  document.getElementById("identity-cancel").addEventListener("click", () => dialog.close());
  document.getElementById("identity-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = field.value.trim();
    const problem = await check(name);
    if (!dialog.open) return;
    refuse(problem);
    if (problem) return field.focus();
    dialog.close();
    use(name);
  });
  onElsewhere((name) => {
    if (name === NAME && recall(NAME)) use(recall(NAME));
  });

  function refuse(problem) {
    error.textContent = problem;
    field.setAttribute("aria-invalid", String(problem !== ""));
  }
}

function use(name) {
  if (name === current) return;
  current = name;
  remember(NAME, name);
  show();
  tell(name);
}

function show() {
  document.getElementById("who-name").textContent = user();
}

/** What is wrong with a name, or "". The server knows best; while it is away, the form of the name must do. */
async function check(name) {
  if (name === "") return "A name is needed.";
  if ([...name].length > MAX_LENGTH) return `At most ${MAX_LENGTH} characters.`;
  try {
    await call(`/tasks/get?${new URLSearchParams({ user_id: name, limit: 1, view: "summary" })}`);
  } catch (error) {
    if (error instanceof Refused) return error.errors[0]?.message ?? error.message;
  }
  return "";
}

function newName() {
  return `guest-${[...crypto.getRandomValues(new Uint8Array(8))].map((byte) => (byte % 36).toString(36)).join("")}`;
}
