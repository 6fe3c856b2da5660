// Who did something, in words: keys, people, the command line, the gateway, devices.

import { isolated, named, visible } from "./names.js";

const OTHERS = { cli: "the command line", gateway: "the gateway" };
const PERSON = "user:";
const KEY = "key_";

/** Text and elements that name an actor. `own`: the actor of who looks; `device`: the device that it happened to. */
export function who(actor, name, { own = null, device = null } = {}) {
  if (actor == null) return "not known";
  if (actor === device) return "the device";
  if (actor === "cli" && name != null) return [OTHERS.cli, " (", named(name), ")"];
  const isOwn = actor === own;
  const self = actor.startsWith(PERSON) ? "you" : "this key";
  if (name != null) return [named(name), isOwn ? ` (${self})` : ""];
  return isOwn ? self : unnamed(actor);
}

/** The same as one text, for a choice: keys of one name are told apart. */
export function choice({ actor, name }) {
  if (actor === "cli" && name != null) return `${OTHERS.cli} (${isolated(name)})`;
  if (name == null) return unnamed(actor);
  return actor.startsWith(KEY) ? `${isolated(name)} · ${unnamed(actor)}` : isolated(name);
}

function unnamed(actor) {
  if (actor.startsWith(KEY)) return `key …${actor.slice(-6)}`;
  return OTHERS[actor] ?? visible(actor.startsWith(PERSON) ? actor.slice(PERSON.length) : actor);
}
