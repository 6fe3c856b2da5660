// Figures, times and names as people read them.

import { el, say, set } from "./dom.js";

const NUMBER = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const STEPS = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
const TICK_MS = 1_000;

export const NOTHING = "–";
export const number = (value) => NUMBER.format(value);
export const percent = (value) => (value == null ? NOTHING : `${NUMBER.format(Math.round(value))} %`);
export const dbm = (value) => (value == null ? NOTHING : `${String(Math.round(value)).replace("-", "−")} dBm`);

/** Megabytes, from a gigabyte on as such. */
export function megabytes(value) {
  if (value == null) return NOTHING;
  return value < 1024 ? `${NUMBER.format(Math.round(value))} MB` : `${NUMBER.format(Math.round(value / 102.4) / 10)} GB`;
}

/** Seconds in the largest unit that fits: "3 min". */
export function duration(seconds) {
  const [length, unit] = STEPS.find(([least]) => seconds >= least) ?? [1, "s"];
  return `${Math.floor(Math.max(0, seconds) / length)} ${unit}`;
}

export const clock = (date) => CLOCK.format(date);
export const full = (moment) => (moment == null ? NOTHING : `${DAY.format(new Date(moment))}, ${clock(new Date(moment))}`);

/** "device.low_battery" as "Device low battery", `factory_reset` as "Factory reset". */
export function words(name) {
  const text = name.replace(/[._]/g, " ").replace(/\bwifi\b/g, "WiFi").replace(/\bble\b/g, "Bluetooth");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What people call a device. */
export const called = (device) => device.name || device.serial_number;

/** A `<time>` that says how long ago that was, and goes on saying it. */
export function ago(moment) {
  return since(el("time", { class: "ago" }), moment);
}

/** Have such an element tell of another moment; null: of none. */
export function since(node, moment) {
  set(node, "datetime", moment);
  set(node, "title", moment == null ? null : full(moment));
  tell(node);
  return node;
}

function tell(node) {
  const moment = node.getAttribute("datetime");
  if (moment == null) return say(node, "never");
  const seconds = (Date.now() - Date.parse(moment)) / 1_000;
  return say(node, seconds < 2 ? "now" : `${duration(seconds)} ago`);
}

/** Keep all of them right, for as long as the page is open. */
export function keepTime() {
  setInterval(() => document.hidden || document.querySelectorAll("time.ago").forEach(tell), TICK_MS);
}
