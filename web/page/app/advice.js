// What somebody can do about an error. The error's own message says what went wrong (docs/tasks.md lists the codes).

const AGAIN = "Retry it: this often works the second time.";
const OTHER_WORDS = "Use it as a new task and change what it asks for.";
const SHORTER = "Use it as a new task and ask for less at once.";
const OPERATOR = "Only whoever runs this service can mend this; tell them the code of the error. Retry it afterwards.";

const ADVICE = {
  expired: "Retry it: it gets a new time limit.",
  crashed: "Use it as a new task with smaller or other inputs; a retry is likely to end the same way.",
  timed_out: "Retry it, or use it as a new task and ask for less at once.",
  internal_error: `Retry it. If it fails again: ${OPERATOR[0].toLowerCase()}${OPERATOR.slice(1)}`,
  invalid_input: OTHER_WORDS,
  invalid_output: AGAIN,
  unknown_kind: "The engines may just be being updated: retry it in a minute.",
  refused: OTHER_WORDS,
  cut_off: SHORTER,
  empty_answer: OTHER_WORDS,
  answer_too_long: SHORTER,
  too_long: SHORTER,
  model_access: OPERATOR,
  model_not_found: OPERATOR,
  quota_exhausted: OPERATOR,
  invalid_request: OPERATOR,
  rate_limited: AGAIN,
  model_timeout: AGAIN,
  model_unreachable: AGAIN,
  model_error: AGAIN,
  invalid_answer: AGAIN,
};

/** What to do next about a failed task, in one or two sentences. */
export function adviceFor(code) {
  return (Object.hasOwn(ADVICE, code) ? ADVICE[code] : null) ?? "Retry it, or use it as a new task and change what it asks for.";
}
