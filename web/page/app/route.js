// What the address says: ?task=<id> is open, the list shows ?kind= and ?status= only. Links can be kept and shared.

import { STATUSES } from "./words.js";

const NAMES = ["task", "kind", "status"];
const listeners = [];

/** {task, kind, status}, each a text or null. */
export function route() {
  const query = new URLSearchParams(location.search);
  const found = Object.fromEntries(NAMES.map((name) => [name, query.get(name) || null]));
  if (!STATUSES.includes(found.status)) found.status = null;
  return found;
}

/** The address with these parts changed (null removes one), from the present one or another. */
export function address(changes, from = route()) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...from, ...changes })) if (value) query.set(name, value);
  const text = query.toString();
  return text ? `/?${text}` : "/";
}

/** Go there; the way back leads here again. */
export function go(changes) {
  const target = address(changes);
  if (target === location.pathname + location.search) return;
  history.pushState(null, "", target);
  for (const listener of listeners) listener();
}

/** Call back whenever the address has changed. */
export function onRoute(listener) {
  listeners.push(listener);
  addEventListener("popstate", listener);
}

/** A click that should stay on this page (not one that opens a tab or a window). */
export function isPlainClick(event) {
  return event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
}
