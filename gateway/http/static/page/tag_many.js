// Tagging what is selected: one device after another, since the API changes the tags of one at a time.

import { ApiError, pause } from "./api.js";
import { ask } from "./dialog.js";
import { el, say } from "./dom.js";
import { number } from "./format.js";
import { changeOf, notTags, tagField } from "./tags.js";

const PAGE = 1_000;
/** The gateway lets a key make 600 calls a minute, unless it is set otherwise. */
const MOST = 5_000;
const WAIT_SECONDS = 5;

export function askTagsOfMany(api, selection) {
  const [add, remove] = [tagField("tagsAdd", "Add"), tagField("tagsRemove", "Remove", "", "A device without the tag stays as it is.")];
  const progress = el("p", { class: "quiet", role: "status" });
  const ended = new AbortController();
  const { size } = selection;
  return ask({
    title: `Tag ${number(size)} ${size === 1 ? "device" : "devices"}`,
    says: size > MOST ? [`The page tags ${number(MOST)} devices at most. For more, run “gateway devices tag” on the gateway’s machine.`] : [],
    fields: [add.node, remove.node, progress],
    action: "Change the tags",
    tone: "main",
    ended,
    run: async () => {
      const change = changeOf(add.read(), remove.read());
      const wrong = notTags([...add.read(), ...remove.read()]); // each device would refuse it
      if (wrong.length) throw new ApiError(400, "wrong", `“${wrong[0]}” is no tag: 1 to 64 letters, digits or _ . : - are.`);
      if (change == null) throw new ApiError(400, "empty", "No tag is given. Write one to add or to remove.");
      if (size > MOST) throw new ApiError(400, "many", `These are more than ${number(MOST)} devices. Select fewer.`);
      await tagAll(api, await idsOf(api, selection, ended.signal), change, progress, ended.signal);
    },
  });
}

async function tagAll(api, ids, change, progress, signal) {
  const refused = [];
  for (const [index, id] of ids.entries()) {
    say(progress, `${number(index)} of ${number(ids.length)} done`);
    try {
      await patch(api, id, change, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || ![400, 404, 409].includes(error.status)) throw left(error, ids.length - index);
      refused.push(error);
    }
  }
  say(progress, "");
  if (refused.length) throw new ApiError(409, "some", `${number(refused.length)} of ${number(ids.length)} devices were not changed. The first answer: ${refused[0].message}`);
}

const left = (error, count) => (error instanceof ApiError ? new ApiError(error.status, error.code, `${error.message} (${number(count)} devices are left.)`) : error);

/** One call; one that comes too often is made again when the gateway says. */
async function patch(api, id, change, signal) {
  for (;;) {
    signal.throwIfAborted();
    try {
      return await api.send("PATCH", `devices/${id}`, change);
    } catch (error) {
      if (error.status !== 429) throw error;
      await pause((error.retryAfter ?? WAIT_SECONDS) * 1_000, signal);
    }
  }
}

/** The ids of what is selected: those of a filter are asked for before any tag changes what it finds. */
async function idsOf(api, { filter, ids }, signal) {
  if (filter == null) return ids;
  const found = [];
  let cursor = null;
  do {
    const page = await api.get("devices", { ...filter, limit: PAGE, cursor }, signal);
    found.push(...page.data.map((each) => each.id));
    cursor = page.next_cursor;
  } while (cursor != null && found.length < MOST);
  return found;
}
