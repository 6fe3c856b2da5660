// Pausing, resuming and cancelling a job, each after a question that says what that leaves undone.

import { onceKey } from "./api.js";
import { ask } from "./dialog.js";
import { number } from "./format.js";
import { devices, outcomesOf } from "./job_words.js";
import { named } from "./names.js";

const RESET = "factory_reset";

export const canPause = (job) => job.status === "running";
export const canResume = (job) => job.status === "paused";

/** What is not delivered can be taken back: also from a job that has stopped by itself. */
export function canCancel(job) {
  const { queued, waiting } = outcomesOf(job.counts);
  return ["scheduled", "running", "paused"].includes(job.status) || (job.status === "aborted" && queued + waiting > 0);
}

export function askPause(api, job) {
  const { queued, waiting } = outcomesOf(job.counts);
  return ask({
    title: ["Pause ", named(job.name), "?"],
    says: [
      `No other device gets its turn until the job is resumed: ${number(waiting)} still wait for it.`,
      `Pausing takes nothing back: what is queued still reaches its device (${number(queued)} now).`,
    ],
    action: "Pause the job",
    tone: "main",
    run: telling(api, job, "pause"),
  });
}

export function askResume(api, job) {
  const { waiting } = outcomesOf(job.counts);
  return ask({
    title: ["Resume ", named(job.name), "?"],
    says: [`It goes on with ${devices(waiting)}, at the rate that it had. Turns that were missed are not made up for.`],
    action: "Resume the job",
    run: telling(api, job, "resume"),
  });
}

export function askCancelJob(api, job) {
  const { queued, delivered, executed, failed, waiting } = outcomesOf(job.counts);
  const isReset = job.action.type === RESET;
  return ask({
    title: job.status === "aborted" ? ["Take back what ", named(job.name), " has queued?"] : ["Cancel ", named(job.name), "?"],
    says: [
      waiting > 0 && `The devices that still wait for their turn are left alone (${number(waiting)} now).`,
      `What is queued and not delivered is taken back (${number(queued)} now), unless a device gets it at this very moment.`,
      isReset && "A device whose reset is taken back is not wiped. It stays unbound, its old token is revoked, and it has to be bound again.",
      `What was delivered cannot be undone (${number(delivered + executed + failed)} now).`,
      "A cancelled job cannot be resumed.",
    ].filter(Boolean),
    action: job.status === "aborted" ? "Take it back" : "Cancel the job",
    run: telling(api, job, "cancel"),
  });
}

/** Sent under one `Idempotency-Key`: tried again after a lost answer, it is done once. */
function telling(api, job, what) {
  const once = onceKey();
  return () => api.post(`jobs/${job.id}/${what}`, {}, once);
}
