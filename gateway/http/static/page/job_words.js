// The words for what jobs do, how they stand, and what became of their targets.

import { duration, full, number, words } from "./format.js";

export const STATUSES = ["scheduled", "running", "paused", "completed", "aborted", "cancelled"];
/** Failures first; then what is not over, what was not done, and what went well. */
export const OUTCOMES = ["failed", "delivered", "queued", "cancelled", "skipped", "executed", "waiting"];
/** Outcomes that do not change any more. */
export const FINAL = ["executed", "failed", "cancelled", "skipped"];
const SKIPPED = {
  not_found: "not known here", deleted: "deleted", already_pending: "a reset is open already", not_bound: "bound to nobody",
  bound_anew: "unbound or bound again after the job was created", command_pending: "a command of this type is open already",
};

export const isOver = (job) => ["completed", "aborted", "cancelled"].includes(job.status);
export const devices = (count) => (count === 1 ? "1 device" : `${number(count)} devices`);

/** How many targets have each outcome; those in none of the API's counts wait for their turn. */
export function outcomesOf({ total, ...counts }) {
  const waiting = total - Object.values(counts).reduce((sum, each) => sum + each, 0);
  return { ...counts, waiting };
}

/** How many need nothing more. */
export const doneOf = (counts) => FINAL.reduce((sum, name) => sum + counts[name], 0);

/** Why a target was skipped or failed. */
export const reasonWords = (reason) => SKIPPED[reason] ?? reason;

/** "3: a reset is open already", for each reason in the counts of a dry run. */
export const skippedWords = (counts) =>
  Object.entries(counts).filter(([name, count]) => name !== "would_queue" && count).map(([name, count]) => `${number(count)}: ${reasonWords(name)}`);

export function actionWords({ type, params }) {
  const wish = params?.recordings === "wipe" ? ", recordings wiped" : params?.recordings === "keep" ? ", recordings kept" : "";
  return `${words(type)}${wish}`;
}

export function paceWords({ per_minute: most, ramp }) {
  const slow = ramp ? `, from ${number(ramp.from_per_minute)} on, twice as many every ${ramp.double_after} s` : "";
  return `${number(most)} a minute${slow}`;
}

export const abortWords = (abort) =>
  abort == null ? "Never by itself" : `At ${abort.failed_percent} % failed, once ${number(abort.min_done)} are done`;

/** How long it takes until so many have had their turn, in seconds. */
export function secondsFor(count, { per_minute: most, ramp }) {
  let [left, seconds] = [count, 0];
  for (let rate = ramp?.from_per_minute ?? most; rate < most; rate *= 2) {
    const turns = (rate * ramp.double_after) / 60;
    if (turns >= left) return seconds + (left * 60) / rate;
    left -= turns;
    seconds += ramp.double_after;
  }
  return seconds + (left * 60) / most;
}

const waits = (count) => (count ? `${devices(count)} ${count === 1 ? "waits for its" : "wait for their"} turn.` : "Each device has had its turn.");

/** How the job stands, in a sentence. */
export function standing(job) {
  const { waiting } = outcomesOf(job.counts);
  if (job.status === "scheduled") return `It starts on ${full(job.start_at)}.`;
  if (job.status === "paused") return `Paused since ${full(job.paused_at)}. ${waits(waiting)} What is queued still reaches its device.`;
  if (job.status === "aborted") return `It stopped by itself: ${job.aborted_because}`;
  if (job.status === "cancelled") return "Cancelled: it queues nothing more. What was delivered was not undone.";
  if (job.status === "completed") return `Completed on ${full(job.finished_at)}.`;
  if (!waiting) return "Each device has had its turn. The job waits for what they report.";
  const left = job.rate_per_minute ? `; at this rate the last has its turn in ${duration((waiting * 60) / job.rate_per_minute)}` : "";
  return `Running at ${number(job.rate_per_minute ?? 0)} a minute${left}.`;
}
