// The devices of a job with what became of each: failures first, or those with one outcome.

import { el, put, say, set } from "./dom.js";
import { NOTHING, ago, number, since, words } from "./format.js";
import { OUTCOMES, outcomesOf, reasonWords } from "./job_words.js";
import { visible } from "./names.js";
import { PagedRows } from "./paged_rows.js";
import { toCertificate, toDevice } from "./routes.js";

const RESET = "factory_reset";

export class JobDevices {
  #counts = Object.fromEntries(OUTCOMES.map((each) => [each, 0]));
  #chosen = null;

  /** `chosen`: an outcome, or null for all; `choose(outcome)`: another one was pressed. */
  constructor(api, id, { chosen, choose, failed }) {
    Object.assign(this, { api, id, choose });
    this.#chosen = OUTCOMES.includes(chosen) ? chosen : null;
    this.buttons = [null, ...OUTCOMES].map((outcome) => this.#button(outcome));
    this.rows = new PagedRows({
      columns: ["Device", "Outcome", "Why", "Changed", "Certificate"], caption: "Devices of the job", css: "joblist targets", make: () => row(this.isReset),
      key: (each) => each.device_id, nothing: "No device has this outcome.", fetch: (page, signal) => this.#page(page, signal), failed,
    });
    this.node = el("section", { class: "panel", "aria-labelledby": "targets" },
      el("h2", { id: "targets" }, "Devices"),
      el("div", { class: "outcome", role: "group", "aria-label": "Outcome" }, this.buttons.map((each) => each.node)), this.rows.node);
  }

  /** Load what is shown, of a job that stands like this. */
  load(job, signal) {
    this.isReset = job.action.type === RESET;
    this.#counts = outcomesOf(job.counts);
    for (const { outcome, node, count } of this.buttons) {
      say(count, number(outcome == null ? job.counts.total : this.#counts[outcome]));
      set(node, "aria-pressed", String(outcome === this.#chosen));
      node.classList.toggle("some", outcome != null && this.#counts[outcome] > 0);
    }
    return this.rows.load(signal);
  }

  close() {
    this.rows.close();
  }

  #button(outcome) {
    const count = el("strong", {});
    const press = () => {
      this.#chosen = outcome;
      this.choose(outcome);
    };
    return { outcome, count, node: el("button", { type: "button", "data-outcome": outcome, onclick: press }, count, el("span", {}, outcome == null ? "All" : words(outcome))) };
  }

  /** One outcome after another: `cursor` is where in which. */
  async #page({ limit, cursor }, signal) {
    const groups = this.#chosen ? [this.#chosen] : OUTCOMES.filter((each) => this.#counts[each] > 0);
    const [index, at] = cursor ?? [0, null];
    if (index >= groups.length) return { data: [], next_cursor: null };
    const page = await this.api.get(`jobs/${this.id}/devices`, { outcome: groups[index], limit, cursor: at }, signal);
    const next = page.next_cursor != null ? [index, page.next_cursor] : index + 1 < groups.length ? [index + 1, null] : null;
    return { data: page.data, next_cursor: next };
  }
}

function row(isReset) {
  const [serial, chip, why, certificate] = [el("bdi", {}), el("span", { class: "chip" }), el("bdi", {}), el("a", {}, "Certificate")];
  const name = el("th", { scope: "row" });
  const link = el("a", {}, serial);
  const when = ago(null);
  const node = el("tr", {}, name, el("td", { class: "state" }, chip), el("td", { class: "why" }, why),
    el("td", { class: "when" }, when), el("td", { class: "paper_link" }, certificate));
  return [node, (target) => {
    const isKnown = target.serial_number != null;
    say(serial, visible(target.serial_number ?? target.device_id));
    if (isKnown) link.href = toDevice(target.device_id);
    if (name.firstChild !== (isKnown ? link : serial)) put(name, isKnown ? link : serial);
    chip.dataset.state = target.outcome;
    say(chip, target.outcome);
    say(why, target.reason == null ? "" : visible(reasonWords(target.reason)));
    if (target.changed_at == null) say(when, NOTHING);
    else since(when, target.changed_at);
    certificate.hidden = !(isReset && target.command_id && ["executed", "failed"].includes(target.outcome));
    if (target.command_id) certificate.href = toCertificate(target.device_id, target.command_id);
  }];
}
