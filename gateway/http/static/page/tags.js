// Tags of devices: how they are shown, and how they are changed.

import { ask, field } from "./dialog.js";
import { el, put, set } from "./dom.js";
import { called } from "./format.js";
import { named } from "./names.js";
import { toFleet } from "./routes.js";

const HELP = "Separate tags by spaces. A tag has 1 to 64 letters, digits or _ . : -";

const FORM = /^[A-Za-z0-9_.:-]{1,64}$/;

/** What no tag can be, of these. */
export const notTags = (tags) => tags.filter((tag) => !FORM.test(tag));

/** The tags that are written in a text, each once. */
export const tagsIn = (text) => [...new Set(text.split(/[\s,]+/).filter(Boolean))];

/** Where tags are shown; `isLink`: each leads to the devices that have it. */
export function tagLine(isLink = false) {
  const node = el("ul", { class: "tags", "aria-label": "Tags", hidden: true });
  let told = null;
  const tell = (tags) => {
    const text = tags.join(" ");
    if (text === told) return; // what has the focus keeps it
    told = text;
    set(node, "hidden", !tags.length);
    put(node, tags.map((tag) => el("li", {}, isLink ? el("a", { href: toFleet({ tag: [tag] }) }, named(tag)) : named(tag))));
  };
  return { node, tell };
}

/** An input for tags, with its label and help. */
export function tagField(id, label, value = "", help = HELP) {
  const input = el("input", { id, value, autocomplete: "off", spellcheck: "false", autocapitalize: "off", placeholder: "ward-3 recall-12" });
  return { node: field(label, input, help), read: () => tagsIn(input.value) };
}

/** Only what was changed is sent: a tag that another person sets meanwhile stays. */
export function askTags(api, device) {
  const before = device.tags ?? [];
  const tags = tagField("tags", "Tags", before.join(" "), `${HELP}. At most 32.`);
  return ask({
    title: ["Tags of ", named(called(device))],
    fields: tags.node,
    action: "Save",
    tone: "main",
    run: async () => {
      const after = tags.read();
      const change = changeOf(after.filter((each) => !before.includes(each)), before.filter((each) => !after.includes(each)));
      if (change) await api.send("PATCH", `devices/${device.id}`, change);
    },
  });
}

/** The body that adds and removes tags; null when that is nothing. */
export function changeOf(add, remove) {
  if (!add.length && !remove.length) return null;
  return { ...(add.length && { add_tags: add }), ...(remove.length && { remove_tags: remove }) };
}
