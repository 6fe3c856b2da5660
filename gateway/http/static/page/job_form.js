// What is asked for a reset as a job beside its devices: name, reason, recordings, pace, when it stops, when it starts.

import { MAX_REASON, recordingsField } from "./actions.js";
import { field } from "./dialog.js";
import { el } from "./dom.js";
import { duration } from "./format.js";
import { secondsFor } from "./job_words.js";

const PACE = { per_minute: 600, from_per_minute: 10, double_after: 60 };
const ABORT = { failed_percent: 10, min_done: 20 };

export class JobForm {
  constructor() {
    this.name = el("input", { id: "jobName", required: true, maxlength: "128", autocomplete: "off", placeholder: "Recall 12" });
    this.reason = el("input", { id: "jobReason", maxlength: String(MAX_REASON), autocomplete: "off" });
    this.recordings = recordingsField();
    this.pace = amount("jobPace", PACE.per_minute);
    this.ramp = tick("jobRamp", "Begin slowly", true);
    [this.from, this.double] = [amount("jobFrom", PACE.from_per_minute), amount("jobDouble", PACE.double_after)];
    this.abort = tick("jobAbort", "Stop by itself when too many fail", true);
    [this.percent, this.least] = [amount("jobPercent", ABORT.failed_percent), amount("jobLeast", ABORT.min_done)];
    this.later = tick("jobLater", "Start later", false);
    this.at = el("input", { id: "jobAt", type: "datetime-local" });
    this.takes = el("small", {});
    this.node = this.#build();
    this.node.addEventListener("input", () => this.#tell());
    this.#tell();
  }

  /** So many devices get their turn. */
  expect(count) {
    this.count = count;
    this.#tell();
  }

  /** What the API takes of it. */
  body() {
    const reason = this.reason.value.trim();
    return {
      name: this.name.value.trim(),
      ...(reason && { reason }),
      action: { type: "factory_reset", params: { recordings: this.recordings.value() } },
      pace: this.#pace(),
      abort: this.abort.input.checked ? { failed_percent: Number(this.percent.value), min_done: Number(this.least.value) } : null,
      ...(this.later.input.checked && this.at.value && { start_at: new Date(this.at.value).toISOString() }),
    };
  }

  #pace() {
    const ramp = this.ramp.input.checked && { from_per_minute: Number(this.from.value), double_after: Number(this.double.value) };
    return { per_minute: Number(this.pace.value), ...(ramp && { ramp }) };
  }

  #build() {
    this.slow = el("div", { class: "two" }, field("Devices a minute at first", this.from), field("Twice as many every (seconds)", this.double));
    this.stop = el("div", { class: "two" }, field("Failed, in percent", this.percent), field("Once so many are done", this.least));
    this.when = field("Start on", this.at, "By the clock of this computer.");
    return el("div", { class: "rows" },
      field("Name", this.name, "What people call the job. Name no person: it outlives a person’s data."),
      field("Reason", this.reason, "Optional. It is kept in the audit trail and on each certificate: name no person here either."),
      this.recordings.node,
      el("fieldset", {}, el("legend", {}, "Pace"), field("Devices a minute at most", this.pace), this.ramp.node, this.slow, this.takes),
      el("fieldset", {}, el("legend", {}, "Safety"), this.abort.node, this.stop),
      el("fieldset", {}, el("legend", {}, "Start"), this.later.node, this.when));
  }

  #tell() {
    this.slow.hidden = !this.ramp.input.checked;
    this.stop.hidden = !this.abort.input.checked;
    this.when.hidden = !this.later.input.checked;
    this.at.required = this.later.input.checked;
    const { per_minute: most, ramp } = this.#pace();
    const isGood = this.count && most > 0 && (!ramp || (ramp.from_per_minute > 0 && ramp.double_after > 0));
    this.takes.textContent = isGood ? `The last device has its turn after about ${about(secondsFor(this.count, { per_minute: most, ramp }))}.` : "";
  }
}

/** Rounded up to whole minutes, of what takes longer than one. */
const about = (seconds) => duration(seconds > 60 ? Math.ceil(seconds / 60) * 60 : Math.ceil(seconds));

const amount = (id, value) => el("input", { id, type: "number", min: "1", step: "1", required: true, inputmode: "numeric", value: String(value) });

function tick(id, label, checked) {
  const input = el("input", { id, type: "checkbox", checked });
  return { input, node: el("p", { class: "tick" }, input, el("label", { for: id }, label)) };
}
