// The audit trail of the fleet: what happened, when, to which device and by whom; filtered, and as a CSV file.

import { choice } from "./actors.js";
import { el, put } from "./dom.js";
import { EVENT_TYPES, eventItem } from "./events.js";
import { exportButton } from "./export.js";
import { words } from "./format.js";
import { notice, tell } from "./notice.js";
import { Paced } from "./paced.js";
import { toEvents } from "./routes.js";
import { Trail } from "./trail.js";

const EVERY_MS = 1_000;
const PAGE = 50;

export class AuditView {
  title = "Events · Device gateway";
  #loaded = new Paced((signal) => this.#load(signal), EVERY_MS);
  #ended = new AbortController();
  #actors = null;

  constructor({ api, keyId }, { type = null, actor = null }) {
    Object.assign(this, { api, actor });
    const page = (cursor) => api.get("events", { limit: PAGE, cursor, type, actor });
    this.trail = new Trail("Events", "Nothing like this has happened.", page, eventItem(keyId, true));
    this.wrong = notice();
    this.type = el("select", { id: "eventType", onchange: () => this.#go() },
      el("option", { value: "" }, "Any"), EVENT_TYPES.map((each) => el("option", { value: each, selected: each === type }, words(each))));
    this.by = el("select", { id: "eventActor", onchange: () => this.#go() });
    this.#offer([]);
    const csv = exportButton(api, "events", () => ({ type, actor }), { file: "events.csv", wrong: this.wrong, signal: this.#ended.signal });
    const field = (label, input) => el("div", { class: "field" }, el("label", { for: input.id }, label), input);
    this.node = el("div", { class: "audit" },
      el("h1", { tabindex: "-1" }, "Events"),
      el("form", { class: "filters", role: "search", "aria-label": "Find events", onsubmit: (event) => event.preventDefault() },
        field("What happened", this.type), field("Who did it", this.by),
        (type || actor) && el("a", { href: toEvents(), class: "button" }, "Clear filters"), csv),
      this.wrong, this.trail.node);
    this.#loaded.ask();
  }

  look() {
    this.#loaded.ask();
  }

  happened() {
    this.#loaded.ask();
  }

  close() {
    this.#loaded.stop();
    this.#ended.abort();
  }

  #go() {
    location.hash = toEvents({ type: this.type.value, actor: this.by.value });
  }

  /** Offer these actors. The one of the address may be none of them: a device, or one whose events are gone. */
  #offer(actors) {
    const isKnown = this.actor == null || actors.some((each) => each.actor === this.actor);
    const all = isKnown ? actors : [{ actor: this.actor, name: null }, ...actors];
    put(this.by, el("option", { value: "" }, "Any"),
      all.map((each) => el("option", { value: each.actor, selected: each.actor === this.actor }, choice(each))));
  }

  async #load(signal) {
    try {
      const [actors] = await Promise.all([this.#actors ?? this.api.get("actors", {}, signal), this.trail.load()]);
      if (this.#actors == null) this.#offer((this.#actors = actors).data);
      tell(this.wrong, null);
    } catch (error) {
      if (!signal.aborted) tell(this.wrong, error);
    }
  }
}
