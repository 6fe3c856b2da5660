// Battery, storage and signal of a device over time.

import { el, put, set } from "./dom.js";
import { Chart } from "./chart.js";
import { dbm, full, megabytes, percent } from "./format.js";
import { notice, tell } from "./notice.js";
import { Paced } from "./paced.js";

const HOUR = 3_600;
/** How far back, and of how many seconds each only the newest heartbeat is asked for: some 350 points at most. */
const RANGES = [["15 min", HOUR / 4, 3], ["1 h", HOUR, 10], ["24 h", 24 * HOUR, 300], ["7 d", 168 * HOUR, 1_800], ["30 d", 720 * HOUR, 7_200]];
const LIMIT = 500;
const EVERY_MS = 9_000;
const SILENCE_MS = 200_000; // three heartbeats of the usual minute: only what is longer is a gap
const TABLE_ROWS = 100;

export class Plots {
  #range = null;
  #loaded = new Paced((signal) => this.#load(signal), EVERY_MS);

  constructor(api, id) {
    Object.assign(this, { api, id });
    const hover = (time) => this.charts.forEach((chart) => chart.hover(time));
    this.charts = [["Battery", percent], ["Storage used", megabytes], ["Signal", dbm]].map(([title, shown]) => new Chart(title, shown, hover));
    this.buttons = RANGES.map((range) => el("button", { type: "button", onclick: () => this.#choose(range) }, range[0]));
    this.wrong = notice();
    this.rows = el("tbody", {});
    this.node = el("section", { class: "panel plots", "aria-labelledby": "plots" },
      el("div", { class: "head" }, el("h2", { id: "plots" }, "Over time"),
        el("div", { role: "group", "aria-label": "How far back", class: "choice" }, this.buttons)),
      this.wrong,
      el("div", { class: "charts" }, this.charts.map((chart) => chart.node)),
      el("details", {}, el("summary", {}, "As a table"), el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Heartbeats" },
        el("table", {}, el("thead", {}, el("tr", {}, ["Received", "Battery", "Storage used", "Signal"].map((each) => el("th", { scope: "col" }, each)))), this.rows))));
  }

  /** Follow the device: by default a day back, of one that was registered just now less. */
  tell(device) {
    this.device = device;
    if (this.#range) return this.#loaded.ask();
    const age = (Date.now() - Date.parse(device.created_at)) / 1_000;
    return this.#choose(RANGES.slice(0, 2).find(([, seconds]) => age < seconds) ?? RANGES[2]);
  }

  close() {
    this.#loaded.stop();
  }

  #choose(range) {
    this.#range = range;
    this.buttons.forEach((button, index) => set(button, "aria-pressed", String(RANGES[index] === range)));
    this.#loaded.stop();
    this.#loaded = new Paced((signal) => this.#load(signal), EVERY_MS);
    this.#loaded.ask();
  }

  async #load(signal) {
    const [, seconds, every] = this.#range;
    const to = Date.now();
    const from = to - seconds * 1_000;
    try {
      const query = { since: new Date(from).toISOString(), every, limit: LIMIT };
      const { data } = await this.api.get(`devices/${this.id}/heartbeats`, query, signal);
      const step = data.some((beat) => beat.hour) ? Math.max(every, HOUR) : every; // old ones are one for each hour
      this.#draw(data.reverse(), { from, to, gap: Math.max(3 * step * 1_000, SILENCE_MS) });
      tell(this.wrong, null);
    } catch (error) {
      if (!signal.aborted) tell(this.wrong, error);
    }
  }

  #draw(beats, frame) {
    const [battery, storage, signal] = ["battery_percent", "storage_used_mb", "signal_strength_dbm"].map((name) => points(beats, name));
    const totals = beats.map((beat) => beat.storage_total_mb ?? beat.storage_used_mb ?? 0);
    const weakest = Math.min(-110, ...signal.map((point) => point.value));
    this.charts[0].tell(battery, { ...frame, low: 0, high: 100, mark: this.device.settings.power.low_battery_threshold_percent });
    this.charts[1].tell(storage, { ...frame, low: 0, high: Math.max(1, this.device.storage_total_mb ?? 0, ...totals) });
    this.charts[2].tell(signal, { ...frame, low: weakest, high: -30 });
    const newest = beats.slice(-TABLE_ROWS).reverse();
    put(this.rows, newest.map((beat) => el("tr", {},
      [full(beat.received_at), percent(beat.battery_percent), megabytes(beat.storage_used_mb), dbm(beat.signal_strength_dbm)].map((each) => el("td", {}, each)))));
  }
}

function points(beats, name) {
  return beats.filter((beat) => beat[name] != null).map((beat) => ({ at: Date.parse(beat.received_at), value: beat[name] }));
}
