// The resets of the fleet: the open ones by age, the others by outcome with their certificates, and both as CSV.

import { ResetList } from "./reset_list.js";
import { el, put, say } from "./dom.js";
import { number } from "./format.js";
import { notice, tell } from "./notice.js";
import { Paced } from "./paced.js";
import { PeriodFilter, periodOf } from "./reset_filters.js";
import { toResets } from "./routes.js";

const EVERY_MS = 3_000;
const HOUR = 3_600;
const DAY = 86_400;

export class ResetsView {
  title = "Resets · Device gateway";
  #loaded = new Paced((signal) => this.#load(signal), EVERY_MS);

  constructor({ api }, query) {
    Object.assign(this, { api, query });
    const { period, error } = periodOf(query);
    this.period = period;
    this.ages = el("ul", { class: "ages", "aria-label": "Open resets by age" });
    this.open = new ResetList(api, { id: "open", heading: "Open", nothing: "No reset is open.", isOpen: true,
      filters: { status: "open", order: "asc" } });
    this.finished = new ResetList(api, { id: "finished", heading: "Finished", nothing: "No reset has ended like this in this time.",
      isOpen: false, filters: { status: query.outcome === "open" ? null : query.outcome, time: "finished_at", ...period } });
    this.open.node.hidden = Boolean(query.outcome) && query.outcome !== "open";
    this.finished.node.hidden = query.outcome === "open";
    this.open.head.after(this.ages);
    this.filter = new PeriodFilter(query, (changed) => location.replace(toResets(changed)));
    this.wrong = notice();
    this.node = el("div", { class: "resets" },
      el("h1", { tabindex: "-1" }, "Resets"), this.filter.node,
      error && el("p", { class: "error notice", role: "alert" }, error), this.wrong, this.open.node, this.finished.node);
    if (!error) this.#loaded.ask();
  }

  look() {
    this.#loaded.ask();
  }

  /** Only what happens to a reset changes this. */
  happened({ type, data }) {
    if (type.startsWith("reset.") || data.type === "factory_reset") this.#loaded.ask();
  }

  close() {
    this.#loaded.stop();
    this.open.close();
    this.finished.close();
  }

  async #load(signal) {
    try {
      const [summary] = await Promise.all([
        this.api.get("resets/summary", this.period, signal),
        ...[this.open, this.finished].filter((each) => !each.node.hidden).map((each) => each.load(signal)),
      ]);
      if (!signal.aborted) this.#tell(summary);
      tell(this.wrong, null);
    } catch (error) {
      if (!signal.aborted) tell(this.wrong, error);
    }
  }

  #tell({ open, finished }) {
    this.open.count(open.count);
    this.finished.count(this.query.outcome ? finished[this.query.outcome] ?? 0 : Object.values(finished).reduce((sum, each) => sum + each, 0));
    this.ages.hidden = !open.count;
    put(this.ages, open.by_age.map((each) => el("li", { class: each.count ? "some" : null },
      say(el("strong", {}), number(each.count)), el("span", {}, age(each)))));
  }
}

function age({ from_seconds: from, to_seconds: to }) {
  if (to == null) return `${length(from)} and more`;
  return from === 0 ? `under ${length(to)}` : `${length(from)} to ${length(to)}`;
}

function length(seconds) {
  const [count, unit] = seconds >= DAY ? [seconds / DAY, "day"] : [seconds / HOUR, "hour"];
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}
