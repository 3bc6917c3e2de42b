// Puts the page together: what is shown, and what happens on each beat.

import { Resource } from "./api.js";
import { Composer } from "./composer.js";
import { announce, arrange } from "./dom.js";
import { Feed, isFinished } from "./feed.js";
import { Heart } from "./heart.js";
import { user, wireIdentity } from "./identity.js";
import { List } from "./list.js";
import { Outbox } from "./outbox.js";
import { go, isPlainClick, onRoute, route } from "./route.js";
import { recall, remember } from "./storage.js";
import { Connection, Strip, wordFor } from "./strip.js";
import { TaskView } from "./task.js";
import { Welcome } from "./welcome.js";

/** Milliseconds within which a task that was sent is opened by itself: later, somebody is reading something else. */
const OPENS = 3000;
/** Milliseconds between two looks at counts and engines, and at the kinds, while nothing else changes. */
const LOOK = 5000;
const KINDS_LOOK = 60_000;

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
    outbox.drop(item);
  },
  drop: (item) => outbox.drop(item),
  more: () => feed.more().then(draw, () => heart.now()),
});
const heart = new Heart(beat, (state) => connection.show(state));
const connection = new Connection(() => heart.now());

let view = null;
let opening = null;
let kinds = recall("kinds") ?? [];
let looked = 0;
let kindsLooked = 0;
let statuses = new Map();

/** Ask the server for all that is shown. Returns whether to ask again soon. Throws Away or Refused. */
async function beat() {
  if (Date.now() - kindsLooked > KINDS_LOOK) {
    if (await kindsResource.read()) drawKinds(kindsResource.body.kinds);
    kindsLooked = Date.now();
  }
  const before = feed.tasks;
  outbox.flush();
  await Promise.all([feed.refresh(), view?.refresh()]);
  const hasChanged = feed.tasks !== before;
  if (hasChanged || Date.now() - looked > LOOK) {
    looked = Date.now();
    await strip.refresh();
  }
  draw();
  tellFinished();
  await outbox.follow((id) => feed.find(id));
  return feed.isBusy || outbox.isBusy || Boolean(view?.isBusy);
}

function draw() {
  list.draw();
  const isStarting = !feed.isLoaded || strip.total === null;
  const isEmpty = strip.total === 0 && feed.tasks.length === 0 && outbox.waiting(user()).length === 0;
  document.body.dataset.view = view ? "task" : isStarting ? "starting" : isEmpty ? "empty" : "list";
  if (view === null) welcome.draw(kinds, isEmpty, (example) => send({ ...example, title: String(Object.values(example.inputs)[0]) }));
  arrange(pane, [view ? view.element : welcome.element]);
}

function drawKinds(found) {
  kinds = found;
  remember("kinds", kinds);
  composer.draw(kinds);
  list.drawKinds(kinds);
  view?.drawKinds(kinds);
}

/** Give a task to the outbox. Returns its item, and a promise for the moment when it has been tried once. */
function send({ kind, inputs, title }) {
  if (route().status !== null) go({ status: null }); // what was just sent must be seen
  const item = outbox.add({ user: user(), kind, inputs, title });
  opening = item.key;
  announce("Sending the task");
  return { item, settled: outbox.flush() };
}

/** The server has a task now: show it, in its place and, if it was sent here and now, open. */
function onAccepted(item, task) {
  list.rename(item.key, task._id);
  if (task.user_id === user()) feed.put({ ...task, title: item.title });
  if (opening === item.key && Date.now() - item.at < OPENS) go({ task: task._id });
  announce(`Accepted: ${item.title}`);
  draw();
  heart.now();
}

/** Tell those who listen to the page what has come to its end. */
function tellFinished() {
  const ended = feed.tasks.filter((task) => isFinished(task) && statuses.has(task._id) && statuses.get(task._id) !== task.status);
  if (ended.length > 3) announce(`${ended.length} tasks have come to their end`);
  else if (ended.length > 0) announce(ended.map((task) => `${wordFor(task.status)}: ${task.title}`).join(". "));
  statuses = new Map(feed.tasks.map((task) => [task._id, task.status]));
}

function showUser() {
  list.show(user());
  strip.show(user());
  statuses = new Map();
  looked = 0;
  showRoute();
}

function showRoute() {
  opening = null;
  const { task, kind, status } = route();
  feed.show({ user: user(), kind, status });
  strip.onRoute();
  if (task !== (view?.id ?? null)) {
    const isFirst = document.body.dataset.view === "starting";
    view = task === null ? null : new TaskView(task, kinds, {
      changed: () => heart.now(),
      use: (name, inputs) => {
        if (matchMedia("(width < 56rem)").matches) go({ task: null });
        composer.use(name, inputs);
      },
    }, feed.find(task));
    if (view === null) document.title = "Sluice";
    draw();
    pane.scrollTop = 0;
    // On a small screen the task takes the place of the list: whoever reads with the keyboard goes with it.
    if (view && !isFirst && matchMedia("(width < 56rem)").matches) {
      scrollTo(0, 0);
      view.focus();
    }
  }
  draw();
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
if (kinds.length > 0) drawKinds(kinds);
showUser();
