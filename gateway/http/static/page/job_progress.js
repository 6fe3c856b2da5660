// The progress of a job over time: how many are done, and how many have failed.

import { Chart } from "./chart.js";
import { el, say } from "./dom.js";
import { number } from "./format.js";
import { FINAL, doneOf, isOver } from "./job_words.js";

const PAGE = 100;
/** A small job is drawn from the times of its devices; a larger one from when it was first looked at. */
const MOST_READ = 1_000;
const MOST_POINTS = 400;
const LEAST_MS = 20_000;

export class JobProgress {
  #points = [];
  #read = null;

  constructor(api, id) {
    Object.assign(this, { api, id });
    const hover = (time) => this.charts.forEach((chart) => chart.hover(time));
    this.charts = [["Done", number], ["Failed", number]].map(([title, shown]) => new Chart(title, shown, hover));
    this.since = el("p", { class: "quiet" });
    this.node = el("section", { class: "panel plots", "aria-labelledby": "progress" },
      el("h2", { id: "progress" }, "Progress over time"), el("div", { class: "charts" }, this.charts.map((chart) => chart.node)), this.since);
  }

  async tell(job, signal) {
    this.node.hidden = job.started_at == null;
    if (job.started_at == null) return;
    this.#read ??= await this.#history(job, signal);
    const to = isOver(job) ? Date.parse(job.finished_at) : Date.now();
    this.#add({ at: to, done: doneOf(job.counts), failed: job.counts.failed });
    const from = Date.parse(job.started_at);
    const frame = { from, to: Math.max(to, this.#points.at(-1).at, from + LEAST_MS), gap: Infinity, low: 0 };
    this.charts[0].tell(this.#curve("done"), { ...frame, high: even(job.counts.total) });
    this.charts[1].tell(this.#curve("failed"), { ...frame, high: even(job.counts.failed) });
  }

  #curve(name) {
    return this.#points.map((point) => ({ at: point.at, value: point[name] }));
  }

  /** What happened before the page was opened, as far as it can be known. */
  async #history(job, signal) {
    const started = Date.parse(job.started_at);
    this.#points = [{ at: started, done: 0, failed: 0 }];
    const isSmall = job.counts.total <= MOST_READ;
    say(this.since, isSmall || Date.now() - started < LEAST_MS ? "" : "A straight line to the moment when this page was opened; from then on as it happens.");
    if (isSmall && doneOf(job.counts)) thinned(steps(await this.#ended(signal), started)).forEach((each) => this.#points.push(each));
    return true;
  }

  /** The devices that are done, with the time of each. */
  async #ended(signal) {
    const found = [];
    let cursor = null;
    do {
      const page = await this.api.get(`jobs/${this.id}/devices`, { outcome: FINAL, limit: PAGE, cursor }, signal);
      found.push(...page.data);
      cursor = page.next_cursor;
    } while (cursor != null);
    return found;
  }

  #add(point) {
    const last = this.#points.at(-1);
    if (last.at >= point.at && last.done === point.done) return;
    this.#points.push({ ...point, at: Math.max(point.at, last.at) });
    if (this.#points.length > 2 * MOST_POINTS) this.#points = thinned(this.#points);
  }
}

/** The next even number, at least 2: half of it stands at the middle line. */
const even = (count) => Math.max(2, count + (count % 2));

/** The counts after each of these devices. */
function steps(targets, started) {
  const sorted = targets.map((each) => [Math.max(started, Date.parse(each.changed_at ?? 0)), each.outcome]).sort(([one], [other]) => one - other);
  let failed = 0;
  return sorted.map(([at, outcome], index) => ({ at, done: index + 1, failed: (failed += outcome === "failed") }));
}

/** Every second, third … point, so that few are left; the last one stays. */
function thinned(points) {
  const every = Math.ceil(points.length / MOST_POINTS);
  return points.filter((_, index) => index % every === 0 || index === points.length - 1);
}
