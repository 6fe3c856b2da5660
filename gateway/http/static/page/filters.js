// What narrows the list: text, and three choices. What is chosen stands in the address.

import { el } from "./dom.js";
import { toFleet } from "./routes.js";

const TYPING_MS = 250;
const CHOICES = {
  connection: ["Connection", { online: "Online", offline: "Offline", never: "Never seen" }],
  status: ["Binding", { bound: "Bound", unbound: "Unbound" }],
  condition: ["Condition", { low_battery: "Low battery", storage_full: "Storage full", reset_pending: "Reset pending" }],
  sort: ["Sorted by", { "created_at.asc": "Oldest first", "updated_at.desc": "Changed last", "serial_number.asc": "Serial number", "name.asc": "Name, A to Z", "name.desc": "Name, Z to A" }],
};
export const NAMES = ["search", "seen", "order", ...Object.keys(CHOICES)];
/** What changes the order of the list, and not what it finds. */
export const ORDER = ["sort", "order"];
/** What is asked for at each choice of the connection: who was never heard is not called offline. */
const CONNECTIONS = { online: { connection: "online" }, offline: { connection: "offline", seen: "true" }, never: { seen: "false" } };

export class Filters {
  #timer = null;

  constructor() {
    this.search = el("input", {
      id: "search", type: "search", placeholder: "Id, serial number, name, end user", maxlength: "128", autocomplete: "off",
      spellcheck: "false", oninput: () => this.#typed(),
    });
    this.selects = Object.entries(CHOICES).map(([name, [label, values]]) => select(name, label, values, () => this.#go()));
    this.clear = el("a", { href: toFleet(), class: "button", hidden: true }, "Clear filters");
    this.node = el("form", { class: "filters", role: "search", "aria-label": "Find devices", onsubmit: (event) => this.#now(event) },
      el("div", { class: "field wide" }, el("label", { for: "search" }, "Search"), this.search),
      this.selects.map((each) => each.field),
      this.clear);
  }

  show(query) {
    if (this.search.value.trim() !== (query.search ?? "")) this.search.value = query.search ?? "";
    for (const { name, input } of this.selects) input.value = (READ[name]?.(query) ?? query[name]) ?? "";
    this.clear.hidden = !NAMES.some((name) => query[name] && !ORDER.includes(name));
  }

  #typed() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#go(), TYPING_MS);
  }

  #now(event) {
    event.preventDefault();
    clearTimeout(this.#timer);
    this.#go();
  }

  /** To another address; typing makes no steps to go back by. */
  #go() {
    const query = { search: this.search.value.trim() };
    for (const { name, input } of this.selects) Object.assign(query, WRITE[name]?.(input.value) ?? { [name]: input.value });
    if (toFleet(query) !== location.hash) location.replace(toFleet(query));
  }
}

/** Choices that are more than one parameter, from the address and to it. */
const READ = {
  connection: ({ connection, seen }) => (seen === "false" ? "never" : connection),
  sort: ({ sort, order }) => sort && `${sort}.${order}`,
};
const WRITE = {
  connection: (value) => CONNECTIONS[value] ?? {},
  sort: (value) => ({ sort: value.split(".")[0], order: value.split(".")[1] }),
};

function select(name, label, values, changed) {
  const input = el("select", { id: `filter_${name}`, onchange: changed },
    el("option", { value: "" }, name === "sort" ? "Newest first" : "Any"),
    Object.entries(values).map(([value, text]) => el("option", { value }, text)));
  return { name, input, field: el("div", { class: "field" }, el("label", { for: input.id }, label), input) };
}
