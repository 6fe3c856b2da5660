// A list of resets, a page at a time, and the whole of it as a CSV file.

import { who } from "./actors.js";
import { el, keyed, put, say, set } from "./dom.js";
import { exportButton } from "./export.js";
import { ago, full, number, since, words } from "./format.js";
import { named, visible } from "./names.js";
import { notice, tell } from "./notice.js";
import { toCertificate, toDevice } from "./routes.js";

const PAGE = 20;
const COLUMNS = { true: ["Device", "State", "Requested", "By", "Reason"], false: ["Device", "Outcome", "Finished", "By", "Reason", "Certificate"] };

export class ResetList {
  #items = [];
  #shown = PAGE;
  #ended = new AbortController();

  /** `filters`: those of the API. */
  constructor(api, { id, heading, nothing, isOpen, filters }) {
    Object.assign(this, { api, isOpen, filters });
    this.body = el("tbody", {});
    this.total = el("span", { class: "quiet figure" });
    this.nothing = el("p", { class: "quiet", hidden: true }, nothing);
    this.more = el("button", { type: "button", hidden: true, onclick: () => this.#grow() }, "Show more");
    this.wrong = notice();
    this.csv = exportButton(api, "resets", () => filters, { file: `resets-${isOpen ? "open" : "finished"}.csv`, wrong: this.wrong, signal: this.#ended.signal });
    this.csv.hidden = true;
    this.table = el("table", { class: `list ${id}`, hidden: true },
      el("caption", { class: "unseen" }, `${heading} resets`),
      el("thead", {}, el("tr", {}, COLUMNS[isOpen].map((each) => el("th", { scope: "col" }, each)))), this.body);
    this.head = el("div", { class: "head" }, el("h2", { id }, heading, " ", this.total), this.csv);
    this.node = el("section", { class: "panel", "aria-labelledby": id }, this.head, this.wrong, this.nothing, this.table, this.more);
  }

  count(number_) {
    say(this.total, number(number_));
  }

  close() {
    this.#ended.abort();
  }

  /** As many as are shown now. */
  async load(signal) {
    const items = [];
    let cursor = null;
    do {
      const limit = Math.min(100, this.#shown - items.length);
      const page = await this.api.get("resets", { ...this.filters, limit, cursor }, signal);
      items.push(...page.data);
      cursor = page.next_cursor;
    } while (cursor != null && items.length < this.#shown);
    this.#items = items;
    this.#tell(cursor != null);
  }

  #tell(hasMore) {
    keyed(this.body, this.#items, (each) => each.command_id, this.isOpen ? openRow : finishedRow);
    this.nothing.hidden = this.#items.length > 0;
    this.table.hidden = this.csv.hidden = !this.#items.length;
    this.more.hidden = !hasMore;
  }

  async #grow() {
    this.#shown += PAGE;
    this.more.disabled = true;
    await this.#tried(() => this.load(this.#ended.signal));
    this.more.disabled = false;
  }

  async #tried(work) {
    try {
      await work();
      tell(this.wrong, null);
    } catch (error) {
      if (!this.#ended.signal.aborted) tell(this.wrong, error);
    }
  }
}

function openRow() {
  const { node, tellAll, chip } = row();
  const when = ago(null);
  node.append(el("td", {}, when), ...tellAll.after);
  return [node, (reset) => {
    tellAll(reset);
    chip.dataset.state = reset.delivered_at ? "delivered" : "pending";
    say(chip, reset.delivered_at ? "wiping itself" : "waits for the device");
    since(when, reset.requested_at);
  }];
}

function finishedRow() {
  const { node, tellAll, chip } = row();
  const [when, certificate] = [el("time", {}), el("td", {})];
  node.append(el("td", {}, when), ...tellAll.after, certificate);
  let shown = null;
  return [node, (reset) => {
    tellAll(reset);
    chip.dataset.state = reset.status;
    say(chip, reset.status);
    when.dateTime = reset.finished_at;
    say(when, full(reset.finished_at));
    const ids = `${reset.certificate_id} ${reset.addendum_id}`;
    if (ids !== shown) put(certificate, ...certificates(reset)); // a link that has the focus keeps it
    shown = ids;
  }];
}

function certificates({ device_id: device, command_id: command, certificate_id: first, addendum_id: addendum }) {
  if (first == null) return [el("span", { class: "quiet" }, "none")];
  const link = (id, text) => el("a", { href: toCertificate(device, command, id), "aria-label": `${text} ${id}` }, text);
  return [link(first, "Certificate"), addendum && " · ", addendum && link(addendum, "Addendum")].filter(Boolean);
}

/** What both lists say of a reset: the device before, who asked and why after. */
function row() {
  const [serial, by, reason] = [el("bdi", {}), el("td", {}), el("td", { class: "reason" })];
  const link = el("a", {}, serial);
  const chip = el("span", { class: "chip" });
  const model = el("small", {});
  const node = el("tr", {}, el("th", { scope: "row" }, link, model), el("td", {}, chip));
  const tellAll = (reset) => {
    link.href = toDevice(reset.device_id);
    say(serial, visible(reset.serial_number));
    say(model, words(reset.model));
    put(by, who(reset.requested_by, reset.requested_by_name));
    set(by, "title", reset.requested_by && visible(reset.requested_by));
    put(reason, reset.reason == null ? el("span", { class: "quiet" }, "no reason given") : named(reset.reason));
  };
  tellAll.after = [by, reason];
  return { node, tellAll, chip };
}
