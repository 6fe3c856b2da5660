// One job: how it stands, how it went, what became of each device, and how to stop it.

import { choice } from "./actors.js";
import { el, say } from "./dom.js";
import { askCancelJob, askPause, askResume, canCancel, canPause, canResume } from "./job_actions.js";
import { progressBar } from "./job_bar.js";
import { JobDevices } from "./job_devices.js";
import { JobProgress } from "./job_progress.js";
import { abortWords, actionWords, doneOf, devices, paceWords, standing } from "./job_words.js";
import { Facts } from "./facts.js";
import { full, number } from "./format.js";
import { isolated, visible } from "./names.js";
import { notice, tell } from "./notice.js";
import { Paced } from "./paced.js";
import { toJob, toJobs } from "./routes.js";

const EVERY_MS = 2_000;

export class JobView {
  title = "Job · Device gateway";
  #loaded = new Paced((signal) => this.#load(signal), EVERY_MS);

  constructor({ api, mayWrite }, id, { outcome = null }) {
    Object.assign(this, { api, id, mayWrite });
    this.wrong = notice();
    this.devices = new JobDevices(api, id, { chosen: outcome, choose: (chosen) => this.#choose(chosen), failed: (error) => tell(this.wrong, error) });
    this.progress = new JobProgress(api, id);
    this.facts = new Facts("About", factsOf);
    this.#build();
    this.#loaded.ask();
  }

  look() {
    this.#loaded.ask();
  }

  /** Events of devices do not name the job; any of these may belong to it. */
  happened({ type, data }) {
    if (data.job_id === this.id || /^(reset|command)\./.test(type)) this.#loaded.ask();
  }

  close() {
    this.#loaded.stop();
    this.devices.close();
  }

  #build() {
    this.heading = el("bdi", {}, "Job");
    this.chip = el("span", { class: "chip" });
    this.words = el("p", { role: "status" });
    this.done = el("p", { class: "quiet figure" });
    this.bar = progressBar();
    const button = (words, question, can, tone = null) => ({ can, node: el("button", { type: "button", class: tone, hidden: true, onclick: () => this.#ask(question) }, words) });
    this.buttons = [button("Pause …", askPause, canPause), button("Resume …", askResume, canResume, "main"), button("Cancel …", askCancelJob, canCancel, "bad")];
    this.body = el("div", { class: "body", hidden: true },
      el("section", { class: "panel standing", "aria-label": "State" }, this.words, this.bar.node, this.done),
      this.progress.node, this.devices.node, this.facts.node);
    this.node = el("div", { class: "job" },
      el("p", { class: "back" }, el("a", { href: toJobs() }, "← Jobs")),
      el("div", { class: "title" }, el("h1", { tabindex: "-1" }, this.heading), this.chip, el("div", { class: "actions" }, this.buttons.map((each) => each.node))),
      this.wrong, this.body);
  }

  /** The address changes, and the view stays. */
  #choose(outcome) {
    history.replaceState(history.state, "", toJob(this.id, { outcome }));
    this.#loaded.ask();
  }

  async #load(signal) {
    try {
      const job = await this.api.get(`jobs/${this.id}`, {}, signal);
      this.#tell(job);
      await Promise.all([this.devices.load(job, signal), this.progress.tell(job, signal)]);
      tell(this.wrong, null);
    } catch (error) {
      if (!signal.aborted) tell(this.wrong, error);
    }
  }

  #tell(job) {
    this.job = job;
    this.title = document.title = `${isolated(job.name)} · Device gateway`;
    say(this.heading, visible(job.name));
    this.chip.dataset.state = job.status;
    say(this.chip, job.status);
    say(this.words, visible(standing(job)));
    this.bar.tell(job.counts);
    say(this.done, `${number(doneOf(job.counts))} of ${devices(job.counts.total)} done, ${number(job.counts.failed)} failed`);
    this.facts.tell(job);
    for (const { can, node } of this.buttons) node.hidden = !(this.mayWrite && can(job));
    this.body.hidden = false;
  }

  async #ask(question) {
    if (await question(this.api, this.job)) this.look();
  }
}

const factsOf = (job) => [
  ["Does", actionWords(job.action)],
  ["Reason", job.reason ?? "no reason given"],
  ["Pace", paceWords(job.pace)],
  ["Stops", abortWords(job.abort)],
  ["Created", `${full(job.created_at)} by ${choice({ actor: job.created_by, name: job.created_by_name })}`],
  ...[["To start", job.start_at], ["Started", job.started_at], ["Finished", job.finished_at]].filter(([, at]) => at != null).map(([name, at]) => [name, full(at)]),
  ["Id", job.id],
];
