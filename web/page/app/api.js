// The HTTP API. Two things can go wrong: the server can't be reached or does not do its work (try again later), or it
// refuses what was asked (trying again would not help).

import { learnTime } from "./times.js";

/** Milliseconds after which an answer is no longer waited for, and more for each character that is sent. */
const PATIENCE = 8000;
const PATIENCE_PER_CHARACTER = 0.25;

/** Statuses by which a proxy says that a request is too large: that does not become better by waiting. */
const TOO_LARGE = new Set([413, 414, 431]);

/** Nobody answers, or somebody who says to come again. `after` is the least pause in seconds, where one was named;
 * `isAnswer` tells the second from the first. */
export class Away extends Error {
  constructor(message, { after = 0, isAnswer = false } = {}) {
    super(message);
    this.after = after;
    this.isAnswer = isAnswer;
  }
}

/** The server will not do this. `status` and `errors` ([{field, message}]) are the problem's (RFC 9457). */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title ?? "The server refused this.");
    this.status = problem.status;
    this.errors = problem.errors ?? [];
  }
}

/** Call the API. Returns {status, etag, body}; a status of 304 has no body. Throws Away or Refused. */
export async function call(path, { method = "GET", body, headers = {}, etag } = {}) {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const request = {
    method,
    body: sent,
    headers: { ...headers },
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE + PATIENCE_PER_CHARACTER * (sent?.length ?? 0)),
  };
  if (sent !== undefined) request.headers["Content-Type"] = "application/json";
  if (etag) request.headers["If-None-Match"] = etag;
  const started = performance.now();
  let response, answer;
  try {
    response = await fetch(path, request);
    if (response.status === 304) return { status: 304, etag };
    answer = await response.json();
  } catch (error) {
    throw notAnswered(error, response);
  }
  learnTime(response.headers.get("Date"), performance.now() - started);
  if (response.ok) return { status: response.status, etag: response.headers.get("ETag"), body: answer };
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  if (!isProblem) throw new Away("Something between here and the server does not work.", { isAnswer: true });
  if (response.status >= 500 || response.status === 429) {
    throw new Away(answer.detail, { after: Number(response.headers.get("Retry-After")) || 0, isAnswer: true });
  }
  throw new Refused(answer);
}

/** The error for a call without an answer, or with one that is not JSON. */
function notAnswered(error, response) {
  if (TOO_LARGE.has(response?.status)) return new Refused({ status: response.status, detail: "This is too large." });
  if (error instanceof SyntaxError) return new Away("Something between here and the server does not work.", { isAnswer: true });
  if (error.name === "TimeoutError") return new Away("The server does not answer.");
  return new Away(navigator.onLine ? "The server can't be reached." : "This device is offline.");
}

/** A thing that is read again and again, and sent only when it has changed. */
export class Resource {
  #path;
  #etag;
  body = null;

  constructor(path) {
    this.#path = path;
  }

  /** Read it. Returns whether it has changed. Throws like `call`. */
  async read() {
    const answer = await call(this.#path, { etag: this.#etag });
    if (answer.status === 304) return false;
    this.#etag = answer.etag;
    this.body = answer.body;
    return true;
  }
}
