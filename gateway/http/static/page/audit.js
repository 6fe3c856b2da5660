// The audit trail of the fleet: what happened, when, to which device and by whom.

import { el } from "./dom.js";
import { EVENT_TYPES, eventItem } from "./events.js";
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

  constructor({ api, keyId }, { type = null }) {
    const page = (cursor) => api.get("events", { limit: PAGE, cursor, type });
    this.trail = new Trail("Events", "Nothing like this has happened.", page, eventItem(keyId, true));
    this.wrong = notice();
    const input = el("select", { id: "eventType", onchange: () => (location.hash = toEvents(input.value)) },
      el("option", { value: "" }, "Any"), EVENT_TYPES.map((each) => el("option", { value: each, selected: each === type }, words(each))));
    this.node = el("div", { class: "audit" },
      el("h1", { tabindex: "-1" }, "Events"),
      el("div", { class: "filters" }, el("div", { class: "field" }, el("label", { for: input.id }, "What happened"), input)),
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
  }

  async #load(signal) {
    try {
      await this.trail.load();
      tell(this.wrong, null);
    } catch (error) {
      if (!signal.aborted) tell(this.wrong, error);
    }
  }
}
