// The HTTP API. Two things can go wrong: the server can't be reached or does not do its work (try again later), or it
// refuses what was asked (trying again would not help).

import { learnTime } from "./times.js";

/** Milliseconds after which an answer is no longer waited for. */
const PATIENCE = 8000;

/** Nobody answers, or somebody who says to come again. `after` is the least pause in seconds, where one was named. */
export class Away extends Error {
  constructor(message, after = 0) {
    super(message);
    this.after = after;
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
  const request = { method, headers: { ...headers }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers["Content-Type"] = "application/json";
  }
  if (etag) request.headers["If-None-Match"] = etag;
  let response, answer;
  try {
    response = await fetch(path, request);
    if (response.status === 304) return { status: 304, etag };
    answer = await response.json();
  } catch (error) {
    if (error instanceof SyntaxError) throw new Away("The server answers something else than Sluice does.");
    throw new Away(navigator.onLine ? "The server can't be reached." : "This device is offline.");
  }
  learnTime(response.headers.get("Date"));
  if (response.ok) return { status: response.status, etag: response.headers.get("ETag"), body: answer };
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  if (!isProblem) throw new Away("Something between here and the server does not work.");
  if (response.status >= 500 || response.status === 429) {
    throw new Away(answer.detail, Number(response.headers.get("Retry-After")) || 0);
  }
  throw new Refused(answer);
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
