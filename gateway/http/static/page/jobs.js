// The jobs of the project, the newest first.

import { who } from "./actors.js";
import { el, say, sayAll } from "./dom.js";
import { ago, number, since, words } from "./format.js";
import { STATUSES, actionWords, devices, doneOf } from "./job_words.js";
import { progressBar } from "./job_bar.js";
import { visible } from "./names.js";
import { notice, tell } from "./notice.js";
import { PagedRows } from "./paged_rows.js";
import { Paced } from "./paced.js";
import { toJob, toJobs } from "./routes.js";

const EVERY_MS = 3_000;

export class JobsView {
  title = "Jobs · Device gateway";
  #loaded = new Paced((signal) => this.#load(signal), EVERY_MS);

  constructor({ api, keyId }, { status = null }) {
    const input = el("select", { id: "jobStatus", onchange: () => location.replace(toJobs({ status: input.value })) },
      el("option", { value: "" }, "Any"), STATUSES.map((each) => el("option", { value: each, selected: each === status }, words(each))));
    this.rows = new PagedRows({
      columns: ["Job", "Status", "Progress", "Created", "By"], caption: "Jobs", css: "joblist", key: (job) => job.id, make: () => row(keyId),
      nothing: status ? "No job stands like this." : "No job was created yet. Select devices in the list, then “Reset …”.",
      fetch: (page, signal) => api.get("jobs", { status, ...page }, signal),
      failed: (error) => tell(this.wrong, error),
    });
    this.wrong = notice();
    this.node = el("div", { class: "jobs" },
      el("h1", { tabindex: "-1" }, "Jobs"),
      el("form", { class: "filters", role: "search", "aria-label": "Find jobs", onsubmit: (event) => event.preventDefault() },
        el("div", { class: "field" }, el("label", { for: input.id }, "Status"), input)),
      this.wrong, el("section", { class: "panel", "aria-label": "Jobs" }, this.rows.node));
    this.#loaded.ask();
  }

  look() {
    this.#loaded.ask();
  }

  /** Any outcome may belong to a job. */
  happened({ type }) {
    if (/^(job|reset|command)\./.test(type)) this.#loaded.ask();
  }

  close() {
    this.#loaded.stop();
    this.rows.close();
  }

  async #load(signal) {
    try {
      await this.rows.load(signal);
      tell(this.wrong, null);
    } catch (error) {
      if (!signal.aborted) tell(this.wrong, error);
    }
  }
}

/** `own`: the actor of who looks. */
function row(own) {
  const [name, by] = [el("bdi", {}), el("td", { class: "by" })];
  const link = el("a", {}, name);
  const [what, chip, figures] = [el("small", {}), el("span", { class: "chip" }), el("small", { class: "figure" })];
  const bar = progressBar();
  const when = ago(null);
  const node = el("tr", {}, el("th", { scope: "row" }, link, what), el("td", { class: "state" }, chip),
    el("td", { class: "progress" }, bar.node, figures), el("td", { class: "when" }, when), by);
  return [node, (job) => {
    link.href = toJob(job.id);
    say(name, visible(job.name));
    say(what, `${actionWords(job.action)} · ${devices(job.counts.total)}`);
    chip.dataset.state = job.status;
    say(chip, job.status);
    bar.tell(job.counts);
    say(figures, progressWords(job.counts));
    since(when, job.created_at);
    sayAll(by, who(job.created_by, job.created_by_name, { own }));
  }];
}

const progressWords = (counts) =>
  `${number(doneOf(counts))} of ${number(counts.total)} done${counts.failed ? `, ${number(counts.failed)} failed` : ""}`;
