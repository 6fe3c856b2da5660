// The fleet: its figures, what narrows the list, and the list.

import { el, put, say } from "./dom.js";
import { DeviceTable } from "./device_table.js";
import { exportButton } from "./export.js";
import { Filters, NAMES, ORDER } from "./filters.js";
import { number } from "./format.js";
import { Glance } from "./glance.js";
import { askResetJob } from "./job_reset.js";
import { notice, tell } from "./notice.js";
import { turned } from "./order.js";
import { Paced } from "./paced.js";
import { toFleet, toJob } from "./routes.js";
import { Selection } from "./selection.js";
import { SelectionBar } from "./selection_bar.js";
import { askTagsOfMany } from "./tag_many.js";

const PAGE = 50;
/** The API leaves out no more devices than this at the beginning of a page. */
const MAX_OFFSET = 10_000;
const EVERY_MS = 3_000;
const NONE = {
  low_battery: "No device says that its battery is low.",
  storage_full: "No device says that its storage is full.",
  never_seen: "Every device that is registered was heard at least once.",
  reset_pending: "No reset is pending: every device that was told to has wiped itself, or said why not.",
};

export class FleetView {
  title = "Device gateway";
  scroll = 0;
  #query = {};
  #found = [0, true]; // how many the filter finds, and whether that is all
  #loaded = new Paced(() => {}, 0);
  #ended = new AbortController();

  constructor({ api, readiness, mayWrite }) {
    Object.assign(this, { api, readiness });
    this.glance = new Glance();
    this.filters = new Filters();
    this.selection = mayWrite ? new Selection(() => this.#selected()) : null;
    this.table = new DeviceTable(this.selection, (column) => this.#sort(column));
    this.wrong = notice();
    this.bar = this.selection && new SelectionBar(this.selection, () => this.selection.setAll(this.#filter(), this.#found[0]),
      [["Tag …", () => this.#ask(askTagsOfMany)], ["Reset …", () => this.#reset(), "bad"]]);
    this.csv = exportButton(api, "devices", () => this.#listed(), { file: "devices.csv", wrong: this.wrong, signal: this.#ended.signal });
    this.range = el("p", { class: "range", role: "status" }, "Loading …");
    this.empty = el("div", { class: "panel empty", hidden: true });
    this.newer = el("a", { class: "button", hidden: true, rel: "prev" }, "Previous");
    this.older = el("a", { class: "button", hidden: true, rel: "next" }, "Next");
    this.pageInput = el("input", { id: "page", type: "number", min: "1", step: "1", inputmode: "numeric", onchange: () => this.#jump() });
    this.pageCount = el("span", {});
    this.jump = el("span", { class: "jump", hidden: true }, el("label", { for: "page" }, "Page"), this.pageInput, this.pageCount);
    this.scroller = el("div", { class: "scroller", hidden: true }, this.table.node);
    this.node = el("div", { class: "fleet" },
      el("h1", { class: "unseen", tabindex: "-1" }, "Fleet"),
      this.glance.node, this.filters.node, this.wrong,
      this.tools = el("div", { class: "listed" }, this.bar?.page, this.range, this.csv),
      this.bar?.node, this.empty, this.scroller,
      el("nav", { class: "pages", "aria-label": "Pages of the list" }, this.newer, this.jump, this.older));
  }

  /** Show what this query finds, now. */
  show(query) {
    this.#query = Object.fromEntries([...NAMES, "offset"].map((name) => [name, query[name] || null]));
    this.filters.show(this.#query);
    this.glance.select(this.#query);
    this.table.order(this.#query);
    if (this.selection?.filter && toFleet(this.selection.filter) !== toFleet(this.#filter())) this.selection.clear();
    this.node.classList.add("loading");
    this.#loaded.stop();
    this.#loaded = new Paced((signal) => this.#load(signal), EVERY_MS);
    this.#loaded.ask();
  }

  look() {
    this.#loaded.ask();
  }

  /** Any event may change a figure or a row. */
  happened() {
    this.#loaded.ask();
  }

  leave() {
    this.scroll = scrollY;
  }

  close() {
    this.#loaded.stop();
    this.#ended.abort();
  }

  async #load(signal) {
    try {
      const total = this.glance.select(this.#query) == null || null; // else a figure tells
      const [stats, list] = await Promise.all([
        this.api.get("devices/stats", {}, signal),
        this.api.get("devices", { ...this.#query, limit: PAGE, total }, signal),
      ]);
      this.#tell(stats, list);
      tell(this.wrong, null);
    } catch (error) {
      if (!signal.aborted) tell(this.wrong, error);
    }
  }

  #tell(stats, { data, has_more: more, total, total_is_exact: isExact }) {
    this.glance.tell(stats, this.readiness.hasBroker);
    this.table.tell(data, this.readiness.hasBroker);
    this.node.classList.remove("loading");
    this.scroller.hidden = !data.length;
    this.filters.node.hidden = this.tools.hidden = !stats.total_count;
    const offset = Number(this.#query.offset ?? 0);
    const counted = this.glance.select(this.#query);
    const all = Math.max((counted ? stats[counted.name] : total) ?? 0, offset + data.length + (more ? 1 : 0));
    say(this.range, data.length ? rangeOf(offset, data.length, all, isExact ?? true) : "");
    this.#found = [all, isExact ?? true];
    this.selection?.show(data.map((each) => each.id), all);
    this.csv.hidden = !data.length;
    this.#pages(offset, all);
    link(this.newer, offset > 0 && { ...this.#query, offset: Math.max(0, offset - PAGE) || null });
    link(this.older, more && offset + PAGE <= MAX_OFFSET && { ...this.#query, offset: offset + PAGE });
    this.empty.hidden = data.length > 0;
    if (!data.length) put(this.empty, this.#nothing(stats, offset));
  }

  /** What the list is asked for, on every page of it. */
  #listed() {
    return { ...this.#query, offset: null };
  }

  /** What of that narrows the list. */
  #filter() {
    return Object.fromEntries(Object.entries(this.#listed()).filter(([name, value]) => value != null && !ORDER.includes(name)));
  }

  #sort(column) {
    location.hash = toFleet({ ...this.#listed(), ...turned(this.#query, column) });
  }

  #selected() {
    this.table.tick();
    this.bar.tell(...this.#found, Object.keys(this.#filter()).length > 0);
  }

  async #ask(question) {
    if (await question(this.api, this.selection)) this.look();
  }

  async #reset() {
    const job = await askResetJob(this.api, this.selection, this.readiness);
    if (!job) return;
    this.selection.clear();
    location.hash = toJob(job.id);
  }

  #pages(offset, all) {
    const pages = Math.ceil(all / PAGE);
    this.jump.hidden = pages < 2;
    const reachable = Math.min(pages, MAX_OFFSET / PAGE + 1);
    this.pageInput.max = reachable;
    if (document.activeElement !== this.pageInput) this.pageInput.value = Math.floor(offset / PAGE) + 1;
    say(this.pageCount, `of ${number(pages)}${reachable < pages ? `; ${number(reachable)} can be opened, so filter the list` : ""}`);
  }

  #jump() {
    const page = Math.min(Number(this.pageInput.max), Math.max(1, Math.round(Number(this.pageInput.value)) || 1));
    location.hash = toFleet({ ...this.#query, offset: (page - 1) * PAGE || null });
  }

  #nothing(stats, offset) {
    if (!stats.total_count) return welcome();
    const key = this.#query.seen === "false" ? "never_seen" : this.#query.condition;
    const words = offset ? "The list ends before this page." : NONE[key];
    const alone = Object.entries(this.#query).every(([name, value]) => value == null || ["condition", "seen", "offset", ...ORDER].includes(name));
    return [
      el("h2", {}, (alone && words) || "No device fits these filters."),
      el("p", {}, el("a", { href: toFleet() }, "Show all devices")),
    ];
  }
}

function rangeOf(offset, shown, all, isExact) {
  if (all === 1) return "1 device";
  return `${number(offset + 1)} to ${number(offset + shown)} of ${isExact ? "" : "more than "}${number(all)} devices`;
}

function link(node, query) {
  node.hidden = !query;
  if (query) node.href = toFleet(query);
}

function welcome() {
  return [
    el("h2", {}, "No devices yet"),
    el("p", {}, "Register the first by its serial number, on the gateway’s machine:"),
    el("pre", {}, "gateway devices register BP-000123 --name 'Ward 3, bed 2'"),
    el("p", {}, "Or see one live without any hardware, with a key that may write:"),
    el("pre", {}, `device-sim run --url ${location.origin} --key sk_live_…`),
    el("p", { class: "quiet" }, "It appears here by itself. Back ends do the same with POST /v1/devices: ",
      el("a", { href: "docs#register_device" }, "try the API"), "."),
  ];
}
