// Puts the page together: what is shown, and what happens on each beat.

import { Refused, Resource } from "./api.js";
import { Composer } from "./composer.js";
import { announce, arrange, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { Heart } from "./heart.js";
import { user, wireIdentity } from "./identity.js";
import { List } from "./list.js";
import { Outbox } from "./outbox.js";
import { go, isPlainClick, onRoute, route } from "./route.js";
import { recall, remember } from "./storage.js";
import { Connection, Strip } from "./strip.js";
import { TaskView } from "./task.js";
import { Welcome } from "./welcome.js";
import { isFinished, titleOf, wordFor } from "./words.js";

/** Milliseconds within which a task that was sent is opened by itself: later, somebody is reading something else. */
const OPENS = 3000;
/** Milliseconds between two looks at counts and engines, and at the kinds, while nothing else changes. */
const LOOK = 5000;
const KINDS_LOOK = 60_000;

const isSmall = matchMedia("(width < 56rem)");
const notice = document.getElementById("notice");
const pane = document.getElementById("pane");
const kindsResource = new Resource("/tasks/get/kinds");
const strip = new Strip();
const feed = new Feed();
const welcome = new Welcome();
const outbox = new Outbox(() => draw(), onAccepted);
const composer = new Composer((task) => send(task));
const list = new List(feed, outbox, {
  edit: (item) => {
    composer.use(item.kind, item.inputs);
    outbox.drop(item.key);
  },
  drop: (item) => outbox.drop(item.key),
  more: () => feed.more().then(() => (draw(), true), () => false),
});
const taskActions = {
  changed: (task) => {
    if (task !== null) feed.update(task);
    heart.now();
  },
  use: (kind, inputs) => {
    if (isSmall.matches) go({ task: null });
    composer.use(kind, inputs);
  },
  isOnItsWay: (id) => outbox.holds(id),
};
let wasAway = false;
const heart = new Heart(beat, (state) => {
  connection.show(state);
  if (wasAway && state.state === "live") outbox.flush(); // the server is back: what waits need not wait longer
  wasAway = state.state === "away";
});
const connection = new Connection(() => {
  outbox.flush();
  heart.now();
});

let view = null;
let opening = null;
let kinds = [];
let hasStarted = false;
let counted = "";
let looked = -Infinity;
let kindsLooked = -Infinity;
let statuses = new Map();

/** Ask the server for all that is shown. Returns whether to ask again soon. Throws Away or Refused, after what could be
 * read is shown. */
async function beat() {
  outbox.resume();
  const parts = await Promise.allSettled([readKinds(), readFeed(), view?.refresh()]);
  draw();
  parts.push(...(await Promise.allSettled([readCounts()])));
  draw();
  tellFinished();
  const failed = parts.find(({ status }) => status === "rejected");
  if (failed) throw failed.reason;
  list.recover();
  await outbox.follow((id) => feed.find(id));
  return feed.isBusy || outbox.isBusy || Boolean(view?.isBusy);
}

async function readKinds() {
  if (performance.now() - kindsLooked < KINDS_LOOK) return;
  if (await kindsResource.read()) drawKinds(kindsResource.body.kinds);
  kindsLooked = performance.now();
}

async function readFeed() {
  try {
    await feed.refresh();
    notice.hidden = true;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    // The address, or the name, asks for a list that there can't be; all else goes on.
    const words = error.errors.map(({ field, message }) => `${field} ${message}`).join("; ");
    setText(notice, `The server does not show this list: ${words || error.message}`);
    notice.hidden = false;
  }
}

/** Count when a task has come or changed its status, and now and then for what others do. */
async function readCounts() {
  const now = feed.tasks.map((task) => task._id + task.status).join();
  if (now === counted && performance.now() - looked < LOOK) return;
  try {
    await strip.refresh();
  } catch (error) {
    if (!(error instanceof Refused)) throw error; // the list says why
  }
  looked = performance.now();
  counted = now;
}

function draw() {
  list.draw();
  hasStarted ||= feed.isLoaded || !notice.hidden;
  const { kind, status } = route();
  const isAll = kind === null && status === null;
  const hasNothing = feed.isLoaded && feed.tasks.length === 0 && outbox.waiting(user()).length === 0;
  const isEmpty = hasNothing && (isAll || strip.total === 0);
  document.body.dataset.view = view ? "task" : !hasStarted ? "starting" : isEmpty ? "empty" : "list";
  document.title = view?.pageTitle ?? "Sluice";
  if (view === null) welcome.draw(kinds, isEmpty, (example) => send({ ...example, title: titleOf(Object.values(example.inputs)) }));
  arrange(pane, [view ? view.element : welcome.element]);
}

function drawKinds(found) {
  composer.draw(found);
  kinds = found;
  remember("kinds", kinds);
  list.drawKinds(kinds);
  view?.drawKinds(kinds);
  showFeed();
}

/** Give a task to the outbox. Returns {tried, drop}: a promise of its item once it has been tried, and a way back. */
function send({ kind, inputs, title }) {
  // What was just sent must be seen.
  go({ status: null, kind: route().kind === kind ? kind : null });
  list.clearSearch();
  const key = outbox.add({ user: user(), kind, inputs, title });
  opening = { key, until: performance.now() + OPENS };
  announce("Sending the task");
  return { tried: outbox.flush().then(() => outbox.get(key)), drop: () => outbox.drop(key) };
}

/** The server has a task now: show it, in its place and, if it was sent here and now, open. */
function onAccepted(item, task) {
  list.rename(item.key, task._id);
  if (task.user_id === user()) feed.put({ ...task, title: item.title });
  if (view?.id === task._id) view.lookAgain();
  if (opening?.key === item.key && performance.now() < opening.until) go({ task: task._id });
  announce(`Accepted: ${item.title}`);
  draw();
  heart.now();
}

/** Tell those who listen to the page what has come to its end. (An open task speaks for itself.) */
function tellFinished() {
  const ended = feed.tasks.filter((task) => isFinished(task) && task._id !== view?.id
    && statuses.has(task._id) && statuses.get(task._id) !== task.status);
  if (ended.length > 3) announce(`${ended.length} tasks have come to their end`);
  else if (ended.length > 0) announce(ended.map((task) => `${wordFor(task.status)}: ${task.title}`).join(". "));
  statuses = new Map(feed.tasks.map((task) => [task._id, task.status]));
}

function showUser() {
  list.show(user());
  strip.show(user());
  statuses = new Map();
  looked = -Infinity;
  showRoute();
}

/** Show the list that the address asks for. A kind that there is not (any more) is no filter. */
function showFeed() {
  const { kind, status } = route();
  const isKind = kinds.length === 0 || kinds.some((one) => one.kind === kind);
  feed.show({ user: user(), kind: isKind ? kind : null, status });
}

function showRoute() {
  opening = null;
  const { task } = route();
  showFeed();
  strip.onRoute();
  const before = view?.id ?? null;
  const isOther = task !== before;
  if (isOther) view = task === null ? null : new TaskView(task, kinds, taskActions, feed.find(task));
  view?.refresh().then(draw, () => {}); // at once: the beat that is under way may take long
  draw();
  if (isOther) pane.scrollTop = 0;
  // On a small screen the task takes the place of the list: whoever reads with the keyboard goes with it.
  if (isOther && view && hasStarted && isSmall.matches) {
    scrollTo(0, 0);
    view.focus();
  }
  if (isOther && view === null && isSmall.matches) list.focus(before);
  heart.now();
}

document.getElementById("home").addEventListener("click", (event) => {
  if (!isPlainClick(event)) return;
  event.preventDefault();
  go({ task: null, kind: null, status: null });
});
setInterval(() => {
  if (document.hidden) return;
  list.tick();
  view?.tick();
}, 1000);
wireIdentity(() => {
  go({ task: null, kind: null, status: null });
  showUser();
});
onRoute(showRoute);
try {
  const known = recall("kinds");
  if (known?.length > 0) drawKinds(known); // as they were the last time: the form is there at once
} catch {
  kinds = []; // of another release of the page; the server's come soon
}
showUser();
