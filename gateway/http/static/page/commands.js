// A device's commands as a timeline, and its reset as the three steps that it takes.

import { el, put, say, set } from "./dom.js";
import { BLUETOOTH_ONLY, canCancel, isOpen, isOutOfReach, RESET } from "./actions.js";
import { ago, clock, duration, full, since, words } from "./format.js";
import { isolated, visible } from "./names.js";
import { toCertificate } from "./routes.js";

const FRESH_MS = 10 * 60_000;
const WAITS = {
  pending: "Waiting for the device. It gets the reset as soon as it is heard again; this never expires.",
  delivered: "The device has it, and is wiping itself.",
  executed: "The device has wiped itself, and signed for it. It can be bound anew.",
  failed: "The device could not do it. Its token stays good for a reset alone: reset it again.",
  cancelled: "It was cancelled. The device has to be bound again.",
};

/** A command of the timeline; `cancel(command)` asks whether to. */
export function commandItem(mayWrite, cancel) {
  return () => {
    const [name, status, when] = [el("strong", {}), el("span", { class: "chip" }), ago(null)];
    const [steps, said] = [el("p", { class: "quiet" }), el("bdi", {})];
    const fate = el("p", {}, said);
    let current = null;
    const button = el("button", { type: "button", hidden: true, onclick: () => cancel(current) }, "Cancel …");
    const certificate = certificateLink();
    const node = el("li", {}, el("p", { class: "line" }, name, status, certificate.node, when, button), steps, fate);
    const update = (command) => {
      current = command;
      node.dataset.state = status.dataset.state = command.status;
      say(name, words(command.type));
      say(status, command.status);
      since(when, command.created_at);
      say(steps, taken(command));
      say(said, visible(end(command)));
      fate.hidden = !fate.textContent;
      certificate.tell(command);
      button.hidden = !(mayWrite && canCancel(command));
    };
    return [node, update];
  };
}

function taken(command) {
  const from = Date.parse(command.created_at);
  const after = (moment) => `${clock(new Date(moment))} (after ${exact(Date.parse(moment) - from)})`;
  return [
    `asked for ${full(command.created_at)}`,
    command.delivered_at && `delivered ${after(command.delivered_at)}`,
    command.executed_at && `executed ${after(command.executed_at)}`,
    isOpen(command) && command.expires_at && `expires ${full(command.expires_at)}`,
  ].filter(Boolean).join(" · ");
}

function exact(milliseconds) {
  if (milliseconds < 1_000) return `${milliseconds} ms`;
  return milliseconds < 10_000 ? `${(milliseconds / 1_000).toFixed(1)} s` : duration(milliseconds / 1_000);
}

function end({ result, error }) {
  const wiped = Array.isArray(result?.wiped) ? `Wiped: ${result.wiped.map((each) => words(String(each)).toLowerCase()).join(", ")}.` : "";
  const kept = Array.isArray(result?.kept) ? ` Kept: ${result.kept.map((each) => words(String(each)).toLowerCase()).join(", ")}.` : "";
  return error ? `${error.code}: ${error.message}` : wiped + kept;
}

/** A link to the certificate of a reset that has ended. */
function certificateLink() {
  const node = el("a", { hidden: true }, "Certificate");
  const tell = (command) => {
    node.hidden = command.type !== RESET || isOpen(command);
    node.href = toCertificate(command.device_id, command.id);
  };
  return { node, tell };
}

/** The reset that is open, or has just ended, large. */
export class ResetProgress {
  constructor(mayWrite, cancel) {
    this.mayWrite = mayWrite;
    this.steps = ["Asked for", "Delivered", "Executed"].map((name) => step(name));
    this.words = el("p", { role: "status" });
    this.cancel = el("button", { type: "button", hidden: true, onclick: () => cancel(this.command) }, "Cancel the reset …");
    this.certificate = certificateLink();
    this.node = el("section", { class: "panel reset", "aria-labelledby": "reset", hidden: true },
      el("h2", { id: "reset" }, "Factory reset"),
      el("ol", { class: "steps" }, this.steps.map((each) => each.node)), this.words, this.certificate.node, this.cancel);
  }

  /** `device`: with `lastSeenBy` and `hasBroker`. */
  tell(commands, device) {
    const command = commands.find((each) => each.type === RESET);
    const shown = command != null && (isOpen(command) || Date.now() - newest(command) < FRESH_MS);
    this.node.hidden = !shown;
    if (!shown) return;
    this.command = command;
    this.node.dataset.state = command.status;
    [command.created_at, command.delivered_at, command.executed_at].forEach((moment, index) => this.steps[index].tell(moment));
    say(this.words, command.error ? `${WAITS.failed} It says: ${isolated(command.error.code)}.` : waits(command, device));
    this.certificate.tell(command);
    this.cancel.hidden = !(this.mayWrite && canCancel(command));
  }
}

function waits({ status }, device) {
  if (status !== "pending") return WAITS[status] ?? "";
  if (isOutOfReach(device)) return `Waiting for WiFi or cellular. ${BLUETOOTH_ONLY}`;
  return device.hasBroker ? WAITS.pending : "Waiting for the broker, which is away. The device gets the reset when the broker is back; this never expires.";
}

const newest = (command) => Date.parse(command.executed_at ?? command.delivered_at ?? command.created_at);

function step(name) {
  const time = el("time", {});
  const node = el("li", {}, el("span", {}, name), time);
  const tell = (moment) => {
    set(node, "data-done", moment != null);
    set(time, "datetime", moment);
    put(time, moment == null ? "" : clock(new Date(moment)));
  };
  return { node, tell };
}
