// Makes the replica set, the users and their rights, or brings them up to date. Run by mongosh inside the pod at each
// start of MongoDB, as often as it takes (mongodb.yaml): each step may find itself done, and one that fails ends the
// script.
const fs = require("fs");

const password = (name) => fs.readFileSync(`/secret/${name}`, "utf8").trim();

// What each may do with the tasks, which is what sluice/store.py does for it. `ping` takes no right. add_task and
// retry_task also send and mark what the queue missed while it was away.
const RIGHTS = {
  "add-task": ["find", "insert", "update"],
  "get-tasks": ["find"],
  "cancel-task": ["find", "update"],
  "retry-task": ["find", "update"],
  engine: ["find", "insert", "update", "createIndex"],
  sweep: ["find", "update", "createIndex"],
};

const admin = db.getSiblingDB("admin");
const sluice = db.getSiblingDB("sluice");

// Who comes from localhost may do this and the next step as nobody, for as long as there is no user.
if (!admin.hello().setName) {
  admin.adminCommand({
    replSetInitiate: { _id: "rs0", members: [{ _id: 0, host: "mongodb-0.mongodb:27017" }] },
  });
}
if (!admin.hello().isWritablePrimary) throw new Error("not the primary yet");

try {
  admin.auth("root", password("root"));
} catch (wrong) {
  try {
    admin.createUser({ user: "root", pwd: password("root"), roles: ["root"] });
  } catch (late) {
    throw wrong; // there is a root, with another password than the Secret's
  }
  admin.auth("root", password("root"));
}

for (const [name, actions] of Object.entries(RIGHTS)) {
  const privileges = [{ resource: { db: "sluice", collection: "tasks" }, actions }];
  if (sluice.getRole(name)) sluice.updateRole(name, { privileges, roles: [] });
  else sluice.createRole({ role: name, privileges, roles: [] });

  if (sluice.getUser(name)) sluice.updateUser(name, { pwd: password(name), roles: [name] });
  else sluice.createUser({ user: name, pwd: password(name), roles: [name] });
}
