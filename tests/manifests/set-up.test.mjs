// The set-up of MongoDB, over a database of a few lines that knows what the script relies on: who may do what before and
// after there is a root, and what is there already. MongoDB itself can't be run where this is tested.
import assert from "node:assert/strict";
import fs from "node:fs";
import test from "node:test";
import vm from "node:vm";

const SCRIPT = fs.readFileSync(new URL("../../k8s/components/mongodb/set-up.js", import.meta.url), "utf8");
const PARTS = ["add-task", "get-tasks", "cancel-task", "retry-task", "engine", "sweep"];

class Server {
  constructor() {
    Object.assign(this, { set: null, primary: false, users: {}, roles: {} });
  }

  /** One run of the script, in a new connection from localhost, with these passwords in the Secret. */
  run(passwords, primarySoon = true) {
    let user = null;
    const may = () => {
      if (user !== "root" && Object.keys(this.users).length > 0) throw new Error("requires authentication");
    };
    const database = (name) => ({
      hello: () => ({ setName: this.set?._id, isWritablePrimary: this.primary }),
      adminCommand: ({ replSetInitiate }) => {
        may();
        this.set = replSetInitiate;
        this.primary = primarySoon;
      },
      auth: (who, password) => {
        if (this.users[`${name}.${who}`]?.pwd !== password) throw new Error("Authentication failed");
        user = who;
      },
      createUser: (one) => {
        may();
        if (this.users[`${name}.${one.user}`]) throw new Error("already exists");
        this.users[`${name}.${one.user}`] = one;
      },
      updateUser: (who, change) => (may(), Object.assign(this.users[`${name}.${who}`], change)),
      getUser: (who) => (may(), this.users[`${name}.${who}`] ?? null),
      createRole: (role) => (may(), (this.roles[role.role] = role)),
      updateRole: (role, change) => (may(), Object.assign(this.roles[role], change)),
      getRole: (role) => (may(), this.roles[role] ?? null),
    });
    const secret = { readFileSync: (path) => `${passwords[path.replace("/secret/", "")]}\n` };
    vm.runInNewContext(SCRIPT, { require: () => secret, db: { getSiblingDB: database }, Error });
  }
}

const passwords = (mark) => Object.fromEntries(["root", ...PARTS].map((name) => [name, `${name}-${mark}`]));

test("a new database gets its replica set, root, and a user for each part with the rights on the tasks alone", () => {
  const server = new Server();
  server.run(passwords("a"));
  assert.equal(server.set.members[0].host, "mongodb-0.mongodb:27017");
  assert.deepEqual(Object.keys(server.users).sort(), ["admin.root", ...PARTS.map((name) => `sluice.${name}`)].sort());
  for (const name of PARTS) {
    assert.equal(server.users[`sluice.${name}`].pwd, `${name}-a`);
    const [{ resource, actions }] = server.roles[name].privileges;
    assert.deepEqual({ ...resource }, { db: "sluice", collection: "tasks" });
    assert.ok(actions.includes("find") && !actions.includes("remove"));
  }
});

test("before it is the primary nothing is made, and the next try goes on", () => {
  const server = new Server();
  assert.throws(() => server.run(passwords("a"), false), /not the primary yet/);
  assert.deepEqual(server.users, {});
  server.primary = true;
  server.run(passwords("a"));
  assert.equal(Object.keys(server.users).length, 1 + PARTS.length);
});

test("a later start gives every part the password of the Secret", () => {
  const server = new Server();
  server.run(passwords("a"));
  server.run({ ...passwords("b"), root: "root-a" });
  for (const name of PARTS) assert.equal(server.users[`sluice.${name}`].pwd, `${name}-b`);
});

test("another password for root than the database's is called what it is", () => {
  const server = new Server();
  server.run(passwords("a"));
  assert.throws(() => server.run(passwords("b")), /Authentication failed/);
  assert.equal(server.users["sluice.engine"].pwd, "engine-a");
});
