// What narrows the list: text, choices, and what is seldom asked for. What is chosen stands in the address.

import { el } from "./dom.js";
import { ORDERS, chosenOrder, orderAsked } from "./order.js";
import { toFleet } from "./routes.js";
import { tagsIn } from "./tags.js";

const TYPING_MS = 250;
const CHOICES = {
  connection: ["Connection", { online: "Online", offline: "Offline", never: "Never seen" }],
  status: ["Binding", { bound: "Bound", unbound: "Unbound" }],
  condition: ["Condition", { low_battery: "Low battery", storage_full: "Storage full", reset_pending: "Reset pending" }],
  sort: ["Sorted by", ORDERS],
};
const TEXTS = { tag: ["Tags", "ward-3 recall-12"], end_user_id: ["End user", "eu_42"], model: ["Model", "bota_pin"] };
/** What changes the order of the list, and not what it finds. */
export const ORDER = ["sort", "order"];
export const NAMES = ["search", "seen", "order", ...Object.keys(CHOICES), ...Object.keys(TEXTS)];
/** What is asked for at each choice of the connection: who was never heard is not called offline. */
const CONNECTIONS = { online: { connection: "online" }, offline: { connection: "offline", seen: "true" }, never: { seen: "false" } };

export class Filters {
  #timer = null;
  #shown = {};

  constructor() {
    const typed = () => this.#typed();
    this.search = el("input", {
      id: "search", type: "search", placeholder: "Id, serial number, name, tag, end user", maxlength: "128", autocomplete: "off",
      spellcheck: "false", oninput: typed, title: "One or two characters: the beginning of a serial number, name or tag",
    });
    this.selects = Object.entries(CHOICES).map(([name, [label, values]]) => select(name, label, values, () => this.#go()));
    this.texts = Object.entries(TEXTS).map(([name, [label, example]]) => text(name, label, example, typed));
    this.clear = el("a", { href: toFleet(), class: "button", hidden: true }, "Clear filters");
    this.more = el("details", {}, el("summary", {}, "More filters"), el("div", { class: "filters" }, this.texts.map((each) => each.field)));
    this.node = el("form", { class: "filters", role: "search", "aria-label": "Find devices", onsubmit: (event) => this.#now(event) },
      el("div", { class: "field wide" }, el("label", { for: "search" }, "Search"), this.search),
      this.selects.map((each) => each.field), this.clear, this.more);
  }

  show(query) {
    this.#shown = query;
    if (this.search.value.trim() !== (query.search ?? "")) this.search.value = query.search ?? "";
    for (const { name, input } of this.selects) input.value = (READ[name]?.(query) ?? query[name]) ?? "";
    for (const { name, input } of this.texts) {
      if (same(read(name, input), query[name])) continue; // a blank that was just typed stays
      input.value = [query[name] ?? []].flat().join(" ");
    }
    if (this.texts.some(({ name }) => query[name])) this.more.open = true;
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
    for (const { name, input } of this.texts) query[name] = read(name, input);
    for (const { name, input } of this.selects) {
      const isKept = name === "connection" && input.value === (READ.connection(this.#shown) ?? ""); // `seen` may stand alone
      Object.assign(query, isKept ? { connection: this.#shown.connection, seen: this.#shown.seen } : WRITE[name]?.(input.value) ?? { [name]: input.value });
    }
    if (toFleet(query) !== location.hash) location.replace(toFleet(query));
  }
}

/** Choices that are more than one parameter, from the address and to it. */
const READ = {
  connection: ({ connection, seen }) => (seen === "false" ? "never" : connection),
  sort: chosenOrder,
};
const WRITE = { connection: (value) => CONNECTIONS[value] ?? {}, sort: orderAsked };

const read = (name, input) => (name === "tag" ? tagsIn(input.value) : input.value.trim());
const same = (one, other) => String(one ?? "") === String(other ?? "");

function select(name, label, values, changed) {
  const input = el("select", { id: `filter_${name}`, onchange: changed },
    el("option", { value: "" }, name === "sort" ? "Newest first" : "Any"),
    Object.entries(values).map(([value, words]) => el("option", { value }, words)));
  return { name, input, field: el("div", { class: "field" }, el("label", { for: input.id }, label), input) };
}

function text(name, label, example, typed) {
  const input = el("input", { id: `filter_${name}`, placeholder: example, autocomplete: "off", spellcheck: "false", autocapitalize: "off", oninput: typed });
  return { name, input, field: el("div", { class: "field" }, el("label", { for: input.id }, label), input) };
}
