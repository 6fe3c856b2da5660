// Where one is, as the part of the address behind #: it can be kept, shared and gone back to, and no server sees it.

/** `{device, command, job, isEvents, isResets, isJobs, query}` of an address; `device`, `command` and `job` are ids or null. */
export function route(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  const found = /^\/devices\/(dev_[A-Za-z0-9]{1,64})(?:\/resets\/(cmd_[A-Za-z0-9]{1,64}))?$/.exec(path);
  const job = /^\/jobs\/(job_[A-Za-z0-9]{1,64})$/.exec(path)?.[1] ?? null;
  return {
    job, isJobs: job != null || path === "/jobs", device: found?.[1] ?? null, command: found?.[2] ?? null, isEvents: path === "/events", isResets: path === "/resets",
    query: queryOf(new URLSearchParams(query)),
  };
}

/** Its parameters; tags, of which there may be several, as a list. */
function queryOf(given) {
  const tags = given.getAll("tag").filter(Boolean);
  return { ...Object.fromEntries(given), ...(given.has("tag") && { tag: tags.length ? tags : null }) };
}

/** The address of the list with these filters, in one order, so that two can be compared. */
export const toFleet = (query = {}) => `#/${asked(query)}`;

/** The same of the resets. */
export const toResets = (query = {}) => `#/resets${asked(query)}`;

/** The same of the jobs, and of the devices of one. */
export const toJobs = (query = {}) => `#/jobs${asked(query)}`;
export const toJob = (id, query = {}) => `#/jobs/${id}${asked(query)}`;

function asked(query) {
  const given = Object.entries(query).flatMap(([name, value]) => [value].flat().map((each) => [name, each]));
  const said = given.filter(([, value]) => value != null && value !== "").sort();
  return said.length ? `?${new URLSearchParams(said)}` : "";
}

/** The certificate of a reset: the newest, or the one with this id. */
export const toCertificate = (device, command, id = null) => `#/devices/${device}/resets/${command}${asked({ certificate: id })}`;

/** The audit trail with these filters: `type`, `actor`. */
export const toEvents = (query = {}) => `#/events${asked(query)}`;
export const toDevice = (id) => `#/devices/${id}`;
