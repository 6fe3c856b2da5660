// The progress of a job over time: how many are done, and how many have failed.

import { Chart } from "./chart.js";
import { el } from "./dom.js";
import { number } from "./format.js";
import { doneOf, isOver } from "./job_words.js";

const MOST_POINTS = 400;
const LEAST_MS = 20_000;

export class JobProgress {
  #points = [];
  #read = null;

  constructor(api, id) {
    Object.assign(this, { api, id });
    const hover = (time) => this.charts.forEach((chart) => chart.hover(time));
    this.charts = [["Done", number], ["Failed", number]].map(([title, shown]) => new Chart(title, shown, hover));
    this.node = el("section", { class: "panel plots", "aria-labelledby": "progress" },
      el("h2", { id: "progress" }, "Progress over time"), el("div", { class: "charts" }, this.charts.map((chart) => chart.node)));
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

  /** What happened before the page was opened. */
  async #history(job, signal) {
    const { data } = await this.api.get(`jobs/${this.id}/progress`, { points: MOST_POINTS }, signal);
    const before = data.map(({ at, done, failed }) => ({ at: Date.parse(at), done, failed }));
    this.#points = [{ at: Date.parse(job.started_at), done: 0, failed: 0 }, ...before];
    return true;
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

/** Every second, third … point, so that few are left; the last one stays. */
function thinned(points) {
  const every = Math.ceil(points.length / MOST_POINTS);
  return points.filter((_, index) => index % every === 0 || index === points.length - 1);
}
