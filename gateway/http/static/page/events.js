// A device's events, each in a line.

import { el, say, sayAll } from "./dom.js";
import { ago, since, words } from "./format.js";
import { named, visible } from "./names.js";
import { toDevice } from "./routes.js";

const SHOWN_APART = ["device_id", "actor", "actor_name", "command_id", "type"];
const OTHERS = { cli: "the command line", gateway: "the gateway" };

export const EVENT_TYPES = [
  "device.registered", "device.updated", "device.bound", "device.unbound", "device.deleted", "device.restored", "device.online",
  "device.offline", "device.low_battery", "device.storage_full", "reset.requested", "reset.delivered", "reset.completed",
  "reset.failed", "reset.superseded", "command.created", "command.delivered", "command.executed", "command.failed",
  "command.expired", "command.cancelled", "device.grant_key_changed", "token.refreshed", "token.revoked", "acknowledgement.late",
  "acknowledgement.refused", "project.created", "key.created", "key.updated", "key.expiring", "key.rotated", "key.revoked",
  "account.created", "account.rotated", "account.revoked", "signing_key.rotated", "signing_key.delivery", "signing_key.leaked",
  "webhook.created", "webhook.updated", "webhook.rotated", "webhook.deleted", "auth.refused",
  "end_user.erased",
];

/** `keyId`: the key of who looks; `withDevice`: with a link to the device of each. */
export const eventItem = (keyId, withDevice = false) => () => {
  const [name, by, when, facts] = [el("strong", {}), el("span", { class: "quiet" }), ago(null), el("p", { class: "quiet" })];
  const link = withDevice && el("a", {});
  const node = el("li", {}, el("p", { class: "line" }, name, link, by, when), facts);
  const update = ({ type, created_at: at, data }) => {
    node.dataset.state = type;
    say(name, data.type ? `${words(type)}: ${words(data.type).toLowerCase()}` : words(type));
    sayAll(by, "by ", who(data, keyId));
    by.title = visible(data.actor);
    if (link && data.device_id) say(link, data.device_id).href = toDevice(data.device_id);
    since(when, at);
    sayAll(facts, told(data));
    facts.hidden = !facts.textContent;
  };
  return [node, update];
};

function who({ actor, actor_name: name, device_id: device }, keyId) {
  if (actor === device) return "the device";
  if (actor === "cli" && name != null) return [OTHERS.cli, " (", named(name), ")"];
  if (name != null) return [named(name), actor === keyId ? " (this key)" : ""];
  if (actor === keyId) return "this key";
  return OTHERS[actor] ?? `key …${String(actor).slice(-6)}`;
}

function told(data) {
  return Object.entries(data)
    .filter(([name, value]) => !SHOWN_APART.includes(name) && value != null)
    .map(([name, value], index) => [index ? " · " : "", `${words(name).toLowerCase()} `, named(typeof value === "string" ? value : JSON.stringify(value))]);
}
