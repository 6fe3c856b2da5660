// Where one is, as the part of the address behind #: it can be kept, shared and gone back to, and no server sees it.

/** `{device: id or null, isEvents, query: {…}}` of an address. */
export function route(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  const device = /^\/devices\/(dev_[A-Za-z0-9]{1,64})$/.exec(path);
  return { device: device?.[1] ?? null, isEvents: path === "/events", query: Object.fromEntries(new URLSearchParams(query)) };
}

/** The address of the list with these filters, in one order, so that two can be compared. */
export function toFleet(query = {}) {
  const given = Object.entries(query).filter(([, value]) => value != null && value !== "").sort();
  const text = new URLSearchParams(given).toString();
  return text ? `#/?${text}` : "#/";
}

export const toEvents = (type) => (type ? `#/events?type=${type}` : "#/events");
export const toDevice = (id) => `#/devices/${id}`;
