// A device's events, each in a line.

import { who } from "./actors.js";
import { el, put, say, sayAll, set } from "./dom.js";
import { ago, since, words } from "./format.js";
import { named, visible } from "./names.js";
import { toDevice, toEvents, toJob } from "./routes.js";

const SHOWN_APART = ["device_id", "job_id", "actor", "actor_name", "command_id", "type"];

export const EVENT_TYPES = [
  "device.registered", "device.updated", "device.bound", "device.unbound", "device.deleted", "device.restored", "device.moved",
  "device.online", "device.offline", "device.low_battery", "device.storage_full", "reset.requested", "reset.delivered", "reset.completed",
  "reset.failed", "reset.superseded", "command.created", "command.delivered", "command.executed", "command.failed",
  "command.expired", "command.cancelled", "device.grant_key_changed", "token.refreshed", "token.revoked", "acknowledgement.late",
  "acknowledgement.refused", "project.created", "key.created", "key.updated", "key.expiring", "key.rotated", "key.revoked",
  "account.created", "account.rotated", "account.revoked", "broker.updated", "signing_key.rotated", "signing_key.delivery", "signing_key.leaked",
  "webhook.created", "webhook.updated", "webhook.rotated", "webhook.deleted", "auth.refused",
  "end_user.erased", "session.started", "session.ended", "job.created", "job.started", "job.paused", "job.resumed", "job.completed",
  "job.aborted", "job.cancelled",
];

/** `keyId`: the actor of who looks; `withDevice`: with links to the device of each, and to all that its actor did. */
export const eventItem = (keyId, withDevice = false) => () => {
  const [name, by, when, facts] = [el("strong", {}), el("span", { class: "quiet" }), ago(null), el("p", { class: "quiet" })];
  const link = withDevice && el("a", {});
  const actor = el(withDevice ? "a" : "span", {});
  put(by, "by ", actor);
  const node = el("li", {}, el("p", { class: "line" }, name, link, by, when), facts);
  const update = ({ type, created_at: at, data }) => {
    node.dataset.state = type;
    say(name, data.type ? `${words(type)}: ${words(data.type).toLowerCase()}` : words(type));
    sayAll(actor, who(data.actor, data.actor_name, { own: keyId, device: data.device_id }));
    if (withDevice && data.actor) set(actor, "href", toEvents({ actor: data.actor }));
    by.title = visible(data.actor);
    if (link && data.device_id) say(link, data.device_id).href = toDevice(data.device_id);
    if (link && data.job_id) say(link, data.job_id).href = toJob(data.job_id);
    since(when, at);
    sayAll(facts, told(data));
    facts.hidden = !facts.textContent;
  };
  return [node, update];
};

function told(data) {
  return Object.entries(data)
    .filter(([name, value]) => !SHOWN_APART.includes(name) && value != null)
    .map(([name, value], index) => [index ? " · " : "", `${words(name).toLowerCase()} `, named(typeof value === "string" ? value : JSON.stringify(value))]);
}
