// What narrows the finished resets: two days and an outcome. They stand in the address.

import { el } from "./dom.js";
import { words } from "./format.js";

export const OUTCOMES = ["executed", "failed", "cancelled", "superseded"];
const DAY = /^\d{4}-\d\d-\d\d$/;

/**
 * `{period: {since, until}, error}` of an address with `from` and `to`. Both are days of the clock of who looks; the last
 * one is counted in.
 */
export function periodOf({ from, to }) {
  const [since, until] = [begin(from, 0), begin(to, 1)];
  const isWrong = (from && since == null) || (to && until == null);
  if (isWrong) return { period: {}, error: "A day in the address is none. Choose it again." };
  if (since && until && since >= until) return { period: {}, error: "The last day is before the first one. Choose them again." };
  return { period: { since, until }, error: null };
}

function begin(day, later) {
  if (!DAY.test(day ?? "")) return null;
  const [year, month, date] = day.split("-").map(Number);
  const moment = new Date(year, month - 1, date);
  if (moment.getMonth() !== month - 1 || moment.getDate() !== date) return null;
  moment.setDate(date + later);
  return moment.toISOString();
}

export class PeriodFilter {
  /** `changed(query)`: another choice was made. */
  constructor(query, changed) {
    this.from = el("input", { id: "from", type: "date", value: DAY.test(query.from ?? "") ? query.from : "", onchange: () => this.#go() });
    this.to = el("input", { id: "to", type: "date", value: DAY.test(query.to ?? "") ? query.to : "", onchange: () => this.#go() });
    const choices = { open: "Open", ...Object.fromEntries(OUTCOMES.map((each) => [each, words(each)])) };
    this.outcome = el("select", { id: "outcome", onchange: () => this.#go() },
      el("option", { value: "" }, "Open and finished"),
      Object.entries(choices).map(([value, text]) => el("option", { value, selected: value === query.outcome }, text)));
    this.changed = changed;
    const field = (label, input) => el("div", { class: "field" }, el("label", { for: input.id }, label), input);
    this.node = el("form", { class: "filters", role: "search", "aria-label": "Find resets", onsubmit: (event) => event.preventDefault() },
      field("Outcome", this.outcome), field("Finished from", this.from), field("Finished to (included)", this.to),
      Object.values(query).some(Boolean) && el("a", { href: "#/resets", class: "button" }, "Clear filters"));
  }

  #go() {
    this.changed({ outcome: this.outcome.value, from: this.from.value, to: this.to.value });
  }
}
