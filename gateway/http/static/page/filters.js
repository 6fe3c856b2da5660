// What narrows the list: text, and three choices. What is chosen stands in the address.

import { el } from "./dom.js";
import { toFleet } from "./routes.js";

const TYPING_MS = 250;
const CHOICES = {
  connection: ["Connection", { online: "Online", offline: "Offline", never: "Never seen" }],
  status: ["Binding", { bound: "Bound", unbound: "Unbound" }],
  condition: ["Condition", { low_battery: "Low battery", storage_full: "Storage full", reset_pending: "Reset pending" }],
};
export const NAMES = ["search", "seen", ...Object.keys(CHOICES)];
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
    for (const { name, input } of this.selects) input.value = (name === "connection" ? connectionOf(query) : query[name]) ?? "";
    this.clear.hidden = !NAMES.some((name) => query[name]);
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
    for (const { name, input } of this.selects) Object.assign(query, name === "connection" ? CONNECTIONS[input.value] : { [name]: input.value });
    if (toFleet(query) !== location.hash) location.replace(toFleet(query));
  }
}

const connectionOf = ({ connection, seen }) => (seen === "false" ? "never" : connection);

function select(name, label, values, changed) {
  const input = el("select", { id: `filter_${name}`, onchange: changed },
    el("option", { value: "" }, "Any"),
    Object.entries(values).map(([value, text]) => el("option", { value }, text)));
  return { name, input, field: el("div", { class: "field" }, el("label", { for: input.id }, label), input) };
}
