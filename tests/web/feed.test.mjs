// The loaded part of a list stays what the server has, whatever happens in between: a model of the server, and walks at
// random over it (each seed is one walk). Run by test_feed.py, or by `node --test tests/web/feed.test.mjs`.

import assert from "node:assert/strict";
import test from "node:test";

globalThis.navigator ??= { onLine: true };
const { Feed } = await import("../../web/page/app/feed.js");

const WALKS = 300;
const STEPS = 25;

/** The server: all tasks by number, and what goes wrong with its answers. */
class Server {
  tasks = [];
  failing = 0;
  requests = 0;
  beforeAnswer = null;

  add(count, status = "completed") {
    for (let number = 0; number < count; number++) {
      const id = String(this.tasks.length + 1).padStart(6, "0");
      // Some tasks are of the same moment: then the greater id is first.
      const created = `2026-01-01T00:00:00.${String(Math.floor(this.tasks.length / 3)).padStart(6, "0")}Z`;
      this.tasks.push({ _id: id, created_at: created, status, user_id: "ada", kind: "code", title: `task ${id}` });
    }
    return this.tasks.at(-1);
  }

  set(place, status) {
    this.tasks[place] = { ...this.tasks[place], status };
  }

  list(status) {
    return this.tasks.filter((task) => !status || task.status === status).reverse();
  }

  fetch = async (path, { headers }) => {
    this.requests++;
    const query = new URL(path, "http://sluice").searchParams;
    const [limit, cursor] = [Number(query.get("limit")), query.get("cursor")];
    const found = this.list(query.get("status")).filter((task) => !cursor || task._id < cursor);
    const tasks = found.slice(0, limit);
    const body = JSON.stringify({ tasks, next: found.length > limit ? tasks.at(-1)._id : null });
    await this.beforeAnswer?.();
    if (this.failing > 0) {
      this.failing--;
      throw new TypeError("the network is away");
    }
    if (headers["If-None-Match"] === body) return { status: 304, headers: new Map() };
    return { status: 200, ok: true, headers: new Map([["ETag", body]]), json: async () => JSON.parse(body) };
  };
}

function open(query = {}) {
  const server = new Server();
  globalThis.fetch = server.fetch;
  const feed = new Feed();
  feed.show({ user: "ada", ...query });
  return { server, feed };
}

/** mulberry32: the same seed gives the same walk. */
function random(seed) {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const ids = (tasks) => tasks.map((task) => task._id);

/** What is loaded is the beginning of the server's list, and the rest can be loaded. */
async function check(server, feed, status, words) {
  const whole = server.list(status);
  assert.deepEqual(ids(feed.tasks), ids(whole.slice(0, feed.tasks.length)), `${words}: the beginning of the list`);
  assert.equal(feed.hasOlder, feed.tasks.length < whole.length, `${words}: whether there is more`);
}

test("after any walk the list is what the server has", async () => {
  for (let seed = 1; seed <= WALKS; seed++) {
    const pick = random(seed);
    const status = pick(3) === 0 ? "running" : null;
    const { server, feed } = open({ status });
    server.add(pick(300), status ?? "completed");
    for (let step = 0; step < STEPS; step++) {
      const choice = pick(8);
      if (choice === 0) server.add(pick(4) === 0 ? 60 + pick(300) : 1 + pick(5), ["pending", "running", "completed"][pick(3)]);
      else if (choice === 1) for (let n = pick(20); n > 0 && server.tasks.length; n--) server.set(pick(server.tasks.length), ["pending", "running", "completed", "failed"][pick(4)]);
      else if (choice === 2) await feed.more().catch(() => {});
      else if (choice === 3) {
        server.failing = 1 + pick(2);
        await feed.refresh().catch(() => {});
        server.failing = 0;
      } else if (choice === 4) feed.put(server.add(1, "running"));
      else if (choice === 5) {
        // A task is accepted while a refresh is under way.
        server.beforeAnswer = () => {
          server.beforeAnswer = null;
          feed.put(server.add(1, "running"));
        };
        const wasLoaded = feed.isLoaded;
        await feed.refresh();
        if (wasLoaded) assert.ok(feed.find(server.tasks.at(-1)._id), `seed ${seed}, step ${step}: what was just accepted stays`);
      } else await Promise.all([feed.refresh(), feed.more()]);
      assert.equal(new Set(ids(feed.tasks)).size, feed.tasks.length, `seed ${seed}, step ${step}: each task once`);
    }
    await feed.refresh();
    await check(server, feed, status, `seed ${seed}`);
    for (const task of feed.tasks.filter((one) => one.status === "pending" || one.status === "running")) {
      assert.equal(task.status, server.tasks[Number(task._id) - 1].status, `seed ${seed}: work is up to date`);
    }
    while (feed.hasOlder) await feed.more();
    await check(server, feed, status, `seed ${seed}, all`);
  }
});

test("a list that does not change costs one request, and is the same list", async () => {
  const { server, feed } = open();
  server.add(400);
  await feed.refresh();
  await feed.more();
  const before = feed.tasks;
  server.requests = 0;
  await feed.refresh();
  assert.equal(server.requests, 1);
  assert.equal(feed.tasks, before);
});

test("work far below what can be kept up to date is not asked for for ever", async () => {
  const { server, feed } = open();
  server.add(1, "pending");
  server.add(1200);
  await feed.refresh();
  while (feed.hasOlder) await feed.more();
  assert.ok(feed.isBusy);
  await feed.refresh();
  server.requests = 0;
  await feed.refresh();
  assert.equal(server.requests, 1);
  assert.ok(!feed.isBusy && feed.hasOlder);
});

test("an answer for another list than the one that is shown now is dropped", async () => {
  const { server, feed } = open();
  server.add(5);
  server.beforeAnswer = () => {
    server.beforeAnswer = null;
    feed.show({ user: "bob" });
  };
  await feed.refresh();
  assert.deepEqual(feed.tasks, []);
  assert.ok(!feed.isLoaded);
});
