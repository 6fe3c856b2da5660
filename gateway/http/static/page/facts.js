// What is known of a device, name by name.

import { el, put } from "./dom.js";
import { NOTHING, full, words } from "./format.js";
import { named } from "./names.js";

/** A panel of names and values, told anew with `tell(device)`. */
export class Facts {
  #told = null;

  /** `button`: what changes these, if anything. */
  constructor(heading, read, nothing = "None.", button = null) {
    Object.assign(this, { read, nothing });
    const id = `facts_${heading.toLowerCase()}`;
    this.body = el("div", {});
    this.node = el("section", { class: "panel facts", "aria-labelledby": id },
      el("div", { class: "head" }, el("h2", { id }, heading), button), this.body);
  }

  tell(device) {
    const facts = this.read(device);
    const text = JSON.stringify(facts);
    if (text === this.#told) return; // what is selected stays selected
    this.#told = text;
    put(this.body, facts.length
      ? el("dl", {}, facts.map(([name, value]) => el("div", {}, el("dt", {}, named(name)), el("dd", {}, named(value)))))
      : el("p", { class: "quiet" }, this.nothing));
  }
}

export const binding = (device) => [
  ["Status", words(device.status)],
  ["End user", device.end_user_id ?? NOTHING],
  ["Bound since", full(device.bound_at)],
  ["Generation", String(device.binding_generation)],
];

export const identity = (device) => [
  ["Id", device.id],
  ["Serial number", device.serial_number],
  ["Model", device.model],
  ["Calls itself", device.device_name ?? NOTHING],
  ["Firmware", device.firmware_version ?? NOTHING],
  ["Registered", full(device.created_at)],
  ["Changed", full(device.updated_at)],
];

export const metadata = (device) => Object.entries(device.metadata ?? {}).map(([name, value]) => [name, plain(value)]);

export const settings = (device) => leaves(device.settings);

/** `{a: {b: 1}}` as `["A · B", "1"]`. */
function leaves(document, path = []) {
  return Object.entries(document).flatMap(([name, value]) =>
    value != null && typeof value === "object" && !Array.isArray(value)
      ? leaves(value, [...path, name])
      : [[[...path, name].map(words).join(" · "), setting(value)]]);
}

function setting(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (value == null) return "off";
  return Array.isArray(value) ? value.join(", ") : String(value);
}

const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
