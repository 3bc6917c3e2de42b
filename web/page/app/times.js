// Times for people: in their own zone and language, by the server's clock.

let skew = 0;

/** Milliseconds by the server's clock, as far as its answers' Date tells. */
export function now() {
  return Date.now() + skew;
}

/** Learn the server's clock from the Date of an answer, which took so many milliseconds to come. It is in whole seconds:
 * smaller differences say nothing, and a slow answer says too little. */
export function learnTime(date, milliseconds) {
  if (milliseconds > 1000) return;
  const difference = Date.parse(date) + 500 - Date.now();
  if (Number.isFinite(difference)) skew = Math.abs(difference) > 2000 ? difference : 0;
}

/** "12 s ago", from a time as the API writes it. */
export function ago(time) {
  const seconds = Math.max(0, Math.round((now() - Date.parse(time)) / 1000));
  if (seconds < 3) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 7 * 86_400) return `${Math.floor(seconds / 86_400)} d ago`;
  return DAY.format(new Date(time));
}

/** "340 ms", "2.1 s", "1 min 12 s". */
export function duration(milliseconds) {
  const ms = Math.max(0, Math.round(milliseconds));
  if (ms < 1000) return `${ms} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** How long a task took, or has taken so far; null while it waits. */
export function durationOf(task) {
  if (task.started_at === null) return null;
  if (task.status === "pending") return null;
  return (task.completed_at === null ? now() : Date.parse(task.completed_at)) - Date.parse(task.started_at);
}

const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const EXACT = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric",
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, timeZoneName: "short",
});

/** The moment exactly, in the reader's own zone. */
export function exact(time) {
  return EXACT.format(new Date(time));
}
