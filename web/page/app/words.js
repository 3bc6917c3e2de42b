// Words for tasks that several parts of the page share.

/** Characters of a title, as the server cuts it. */
const TITLE = 200;

export const STATUSES = ["pending", "running", "completed", "failed", "cancelled"];

const TERMINAL = new Set(["completed", "failed", "cancelled"]);

/** Whether a task has come to its end. */
export function isFinished(task) {
  return TERMINAL.has(task.status);
}

/** A status as the API says it, for people. */
export function wordFor(status) {
  return status[0].toUpperCase() + status.slice(1);
}

/** What a task is called: the first line of the first text among its inputs, as the server makes it for lists. */
export function titleOf(inputs) {
  const text = inputs.find((value) => typeof value === "string" && value.trim()) ?? "";
  return [...text.trim().split(/\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]/u, 1)[0].trim()].slice(0, TITLE).join("");
}
