// Node-RED with one flow, tuned: mqtt in -> validate -> gather -> store. `node run.mjs DATABASE PORT`
//
// User and password of the broker are in the environment. It runs without an editor and without HTTP, with its flow from
// this file. mqtt in acknowledges a message when it hands it on, so before anything is stored.

import process from "node:process";

import Database from "better-sqlite3";
import RED from "node-red";

const [path, port] = process.argv.slice(2);
const MOST = 500; // heartbeats in a transaction
const IDLE_MS = 20; // an incomplete batch waits so long for another

/** The function of a transaction that stores heartbeats: the newest state of each device, and a row each. */
function storage() {
  const database = new Database(path);
  database.pragma("journal_mode = WAL");
  database.pragma("synchronous = FULL");
  database.exec("CREATE TABLE health (device TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID");
  database.exec(
    "CREATE TABLE heartbeats (id INTEGER PRIMARY KEY, device TEXT NOT NULL, sent_at TEXT, state TEXT NOT NULL)",
  );
  const newest = database.prepare("INSERT OR REPLACE INTO health (device, state) VALUES (?, ?)");
  const history = database.prepare("INSERT INTO heartbeats (device, sent_at, state) VALUES (?, ?, ?)");
  return database.transaction((beats) => {
    for (const { device, state, sentAt } of beats) {
      newest.run(device, state);
      history.run(device, sentAt, state);
    }
  });
}

/** The rules for each field of a heartbeat, as the gateway has them; a field may always be missing. */
const STATES = ["idle", "recording", "syncing", "uploading", "charging", "lowBattery", "storageFull", "error"];
const RADIOS = ["wifi", "4g", "ble"];
const number = (low, high) => (value) => Number.isFinite(value) && value >= low && value <= high;
const count = (value) => Number.isInteger(value) && value >= 0;
const text = (most) => (value) => typeof value === "string" && value.length <= most && !value.includes("\0");
const RULES = {
  battery_percent: number(0, 100),
  storage_used_mb: number(0, 1e15),
  storage_total_mb: number(0, 1e15),
  signal_strength_dbm: number(-200, 0),
  firmware_version: text(32),
  device_name: text(64),
  device_state: (value) => STATES.includes(value),
  pending_recordings: count,
  flags: (value) => count(value) && value <= 255,
  connection_type: (value) => Array.isArray(value) && value.length <= 8 && value.every((each) => RADIOS.includes(each)),
  sent_at: (value) => !Number.isNaN(Date.parse(value)),
};

function validHeartbeat(beat) {
  return Object.entries(RULES).every(([name, holds]) => beat[name] == null || holds(beat[name]));
}

// The bodies of the function nodes, as one would type them into the editor.

const VALIDATE = `
  let beat;
  try { beat = JSON.parse(msg.payload); } catch { return null; }
  if (!global.get("validHeartbeat")(beat)) return null;
  return { payload: { device: msg.topic.split("/")[1], state: msg.payload, sentAt: beat.sent_at ?? null } };`;

const GATHER_START = `context.set("waiting", []);`;
const GATHER = `
  const waiting = context.get("waiting");
  waiting.push(msg.payload);
  if (waiting.length === 1) context.set("timer", setTimeout(() => node.send({ payload: waiting.splice(0) }), ${IDLE_MS}));
  if (waiting.length < ${MOST}) return null;
  clearTimeout(context.get("timer"));
  return { payload: waiting.splice(0) };`;

const STORE = `global.get("store")(msg.payload);`;

const step = (id, func, next, more = {}) => ({
  id, type: "function", z: "flow", func, outputs: next.length, wires: [next], ...more,
});

const FLOW = [
  { id: "flow", type: "tab", label: "heartbeats" },
  {
    id: "broker", type: "mqtt-broker", broker: "127.0.0.1", port, clientid: "", autoConnect: true,
    protocolVersion: "5", keepalive: "60", cleansession: true,
  },
  {
    id: "in", type: "mqtt in", z: "flow", topic: "devices/+/heartbeat", qos: "1", datatype: "utf8", broker: "broker",
    inputs: 0, wires: [["validate"]],
  },
  step("validate", VALIDATE, ["gather"]),
  step("gather", GATHER, ["store"], { initialize: GATHER_START }),
  step("store", STORE, []),
];

const keptInThisFile = {
  init: async () => {},
  getFlows: async () => FLOW,
  getCredentials: async () => ({
    broker: { user: process.env.BENCH_BROKER_USER, password: process.env.BENCH_BROKER_PASSWORD },
  }),
  getSettings: async () => ({}),
  saveSettings: async () => {},
  getSessions: async () => ({}),
  saveSessions: async () => {},
};

RED.init({
  storageModule: keptInThisFile,
  credentialSecret: false,
  userDir: process.cwd(),
  httpAdminRoot: false,
  httpNodeRoot: false,
  functionGlobalContext: { store: storage(), validHeartbeat },
  logging: { console: { level: "error" } },
});
await RED.start();
console.log("ready");
