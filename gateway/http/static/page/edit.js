// What people write about a device: its name, notes, and the rest of its metadata.

import { ask, field } from "./dialog.js";
import { el } from "./dom.js";
import { called } from "./format.js";
import { named } from "./names.js";

const NOTES = "notes";
const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

export function askEdit(api, device) {
  const known = device.metadata ?? {};
  const hasNotes = typeof (known[NOTES] ?? "") === "string";
  const name = el("input", { id: "name", maxlength: "128", autocomplete: "off", value: device.name ?? "" });
  const notes = el("textarea", { id: "notes", rows: "4" }, hasNotes ? known[NOTES] ?? "" : "");
  const rows = el("div", { class: "rows" });
  const add = (key, value) => rows.append(row(key, value));
  Object.entries(known).filter(([key]) => !(hasNotes && key === NOTES)).forEach(([key, value]) => add(key, value));
  return ask({
    title: ["Name and notes of ", named(called(device))],
    fields: [
      field("Name", name, "What people call it; empty: its serial number."),
      hasNotes && field("Notes", notes, "Kept in its metadata as “notes”."),
      el("fieldset", {}, el("legend", {}, "Other metadata"), rows,
        el("button", { type: "button", onclick: () => (add("", ""), rows.lastElementChild.querySelector("input").focus()) }, "Add a line")),
    ],
    action: "Save",
    tone: "main",
    run: async () => {
      const metadata = { ...(hasNotes && changeOf(NOTES, known[NOTES], notes.value.trim())), ...changes(known, rows) };
      const change = { ...(name.value.trim() !== (device.name ?? "") && { name: name.value.trim() || null }),
        ...(Object.keys(metadata).length > 0 && { metadata }) };
      if (Object.keys(change).length) await api.send("PATCH", `devices/${device.id}`, change);
    },
  });
}

/** A line of metadata; one without a key or a value is none. */
function row(key, value) {
  const node = el("div", { class: "row" },
    el("input", { class: "key", "aria-label": "Key", placeholder: "Key", maxlength: "128", value: key, readonly: key !== "" }),
    el("input", { class: "value", "aria-label": `Value of ${key || "the new key"}`, placeholder: "Value", value: asText(value) }),
    el("button", { type: "button", "aria-label": `Remove ${key || "this line"}`, onclick: () => node.remove() }, "Remove"));
  return node;
}

function changes(known, rows) {
  const left = new Map([...rows.children].map((each) => [each.querySelector(".key").value.trim(), each.querySelector(".value").value]));
  const removed = Object.keys(known).filter((key) => key !== NOTES && !left.has(key)).map((key) => [key, null]);
  const written = [...left].filter(([key]) => key).map(([key, text]) => Object.entries(changeOf(key, known[key], text))).flat();
  return Object.fromEntries([...removed, ...written]);
}

/** Text stays text; of any other value what is written has to be JSON, or becomes text. */
function changeOf(key, before, text) {
  if (before === undefined ? text === "" : text === asText(before)) return {};
  if (text === "") return { [key]: null };
  if (before === undefined || typeof before === "string") return { [key]: text };
  try {
    return { [key]: JSON.parse(text) };
  } catch {
    return { [key]: text };
  }
}
