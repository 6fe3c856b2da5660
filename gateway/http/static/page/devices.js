// What the list and the view of a device share: connection, bars, and what counts as low or full.

import { el, say } from "./dom.js";
import { words } from "./format.js";

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
