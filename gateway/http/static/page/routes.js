// Where one is, as the part of the address behind #: it can be kept, shared and gone back to, and no server sees it.

/** `{device, command, isEvents, isResets, query}` of an address; `device` and `command` are ids or null. */
export function route(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  const found = /^\/devices\/(dev_[A-Za-z0-9]{1,64})(?:\/resets\/(cmd_[A-Za-z0-9]{1,64}))?$/.exec(path);
  return {
    device: found?.[1] ?? null, command: found?.[2] ?? null, isEvents: path === "/events", isResets: path === "/resets",
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

/** The address of the list with these filters, in one order, so that two can be compared. */
export const toFleet = (query = {}) => `#/${asked(query)}`;

/** The same of the resets. */
export const toResets = (query = {}) => `#/resets${asked(query)}`;

function asked(query) {
  const given = Object.entries(query).filter(([, value]) => value != null && value !== "").sort();
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** The certificate of a reset: the newest, or the one with this id. */
export const toCertificate = (device, command, id = null) => `#/devices/${device}/resets/${command}${asked({ certificate: id })}`;

/** The audit trail with these filters: `type`, `actor`. */
export const toEvents = (query = {}) => `#/events${asked(query)}`;
export const toDevice = (id) => `#/devices/${id}`;
