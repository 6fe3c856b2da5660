// The list of devices, a page of it at a time, kept up to date in place.

import { el, keyed, say } from "./dom.js";
import { NOTHING, ago, called, dbm, megabytes, percent, since, words } from "./format.js";
import { visible } from "./names.js";
import { toDevice } from "./routes.js";

const HEADINGS = ["Device", "Connection", "Battery", "Storage", "Signal", "Doing", "Bound to", "Last heartbeat"];

export class DeviceTable {
  constructor() {
    this.body = el("tbody", {});
    this.node = el("table", { class: "devices" },
      el("caption", { class: "unseen" }, "Devices"),
      el("thead", {}, el("tr", {}, HEADINGS.map((each) => el("th", { scope: "col" }, each)))),
      this.body);
  }

  /** `isKnown`: whether their presence is. */
  tell(devices, isKnown) {
    keyed(this.body, devices.map((device) => ({ ...device, presence: presence(device, isKnown) })), (device) => device.id, row);
  }
}

function row() {
  const [title, serial, model, bound] = ["bdi", "bdi", "bdi", "bdi"].map((tag) => el(tag, {}));
  const [link, dot] = [el("a", {}, title), el("span", {}, " · ")];
  const connection = connectionMark();
  const [battery, storage] = [bar(), bar()];
  const [signal, doing, owner] = [el("td", { class: "figure" }), el("td", {}), el("td", {}, bound)];
  const seen = ago(null);
  const node = el("tr", {},
    el("th", { scope: "row" }, link, el("small", {}, serial, dot, model)),
    el("td", {}, connection.node),
    el("td", {}, battery.node),
    el("td", {}, storage.node),
    signal, doing, owner,
    el("td", {}, seen));
  const update = (device) => {
    link.href = toDevice(device.id);
    say(title, visible(called(device)));
    say(serial, visible(device.name ? device.serial_number : ""));
    dot.hidden = !device.name;
    say(model, device.model);
    connection.tell(device.presence);
    battery.tell(device.battery_percent, percent(device.battery_percent), isLow(device));
    storage.tell(used(device), used(device) == null ? megabytes(device.storage_used_mb) : percent(used(device)), isFull(device));
    say(signal, dbm(device.signal_strength_dbm));
    say(doing, device.recording_state?.device_state == null ? NOTHING : spaced(device.recording_state.device_state));
    say(bound, device.end_user_id ?? "Unbound");
    owner.classList.toggle("quiet", device.end_user_id == null);
    since(seen, device.last_heartbeat_at);
  };
  return [node, update];
}

/** Its connection as far as it is known: without the broker nothing tells of a device that goes or comes. */
export function presence(device, isKnown) {
  if (!isKnown) return "unknown";
  return device.connection === "offline" && device.last_heartbeat_at == null ? "never_seen" : device.connection;
}

/** A dot and a word. */
export function connectionMark() {
  const word = el("span", {});
  const node = el("span", { class: "connection" }, el("span", { class: "dot", "aria-hidden": "true" }), word);
  const tell = (connection) => {
    node.dataset.state = connection;
    say(word, words(connection));
  };
  return { node, tell };
}

/** A bar and what it means; `bad` marks it, in words too. */
export function bar() {
  const fill = el("i", {});
  const text = el("span", { class: "figure" });
  const mark = el("span", { class: "unseen" });
  const track = el("span", { class: "track", "aria-hidden": "true" }, fill);
  const node = el("span", { class: "bar" }, track, text, mark);
  const tell = (value, shown, bad) => {
    track.hidden = value == null;
    fill.style.inlineSize = `${Math.min(100, value ?? 0)}%`;
    say(text, shown);
    node.classList.toggle("bad", bad);
    say(mark, bad ? " (needs attention)" : "");
  };
  return { node, tell };
}

/** How much of its storage is used, in percent; null when it did not say. */
export function used({ storage_used_mb: part, storage_total_mb: all }) {
  return part == null || !all ? null : (100 * part) / all;
}

export function isLow(device) {
  const least = device.settings.power.low_battery_threshold_percent;
  return device.recording_state?.device_state === "lowBattery" || (device.battery_percent != null && device.battery_percent <= least);
}

export const isFull = (device) => device.recording_state?.device_state === "storageFull" || (used(device) ?? 0) >= 99.5;

/** "storageFull" as "storage full". */
export const spaced = (name) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
