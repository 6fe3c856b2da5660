// A form for a device's settings, made from the schema of the API: what the gateway takes is what can be set.

import { ask, field } from "./dialog.js";
import { el } from "./dom.js";
import { called, words } from "./format.js";
import { named } from "./names.js";

export async function askSettings(api, device) {
  const schema = (await api.document()).components.schemas.UpdateDevice.properties.settings;
  const form = group(schema, device.settings, "set");
  return ask({
    title: ["Settings of ", named(called(device))],
    says: ["The device takes them when it asks for them next. What is not changed here stays as it is."],
    fields: form.nodes,
    action: "Save",
    tone: "main",
    run: async () => {
      const settings = difference(device.settings, form.read());
      if (settings !== undefined) await api.send("PATCH", `devices/${device.id}`, { settings });
    },
  });
}

/** `{nodes, read}` of the properties of an object. */
function group(schema, value, id) {
  const parts = Object.entries(schema.properties).map(([name, each]) => [name, part(each, value?.[name], `${id}_${name}`, words(name))]);
  return {
    nodes: parts.map(([, each]) => each.node),
    read: () => Object.fromEntries(parts.map(([name, each]) => [name, each.read()])),
  };
}

function part(schema, value, id, label) {
  const plain = (schema.anyOf ?? []).find((each) => each.type !== "null");
  if (schema.type === "object") return section(schema, value, id, label);
  if (schema.type === "boolean") return tick(value, id, label);
  if (schema.type === "array") return order(schema, value, id, label);
  if (schema.enum) return choice(schema, value, id, label);
  if (plain?.type === "object") return optional(plain, value, id, label);
  if (schema.type === "integer" || plain?.type === "integer") return number(schema, value, id, label);
  return text(plain ?? schema, value, id, label);
}

function section(schema, value, id, label) {
  const inner = group(schema, value, id);
  const node = el("fieldset", {}, el("legend", {}, label), schema.description && el("small", {}, tidy(schema.description)), inner.nodes);
  return { node, read: inner.read };
}

/** A group that may be missing. */
function optional(schema, value, id, label) {
  const inner = section(schema, value, id, label);
  const all = [...inner.node.children].slice(1);
  const show = () => all.forEach((each) => (each.hidden = !isSet.read()));
  const isSet = tick(value != null, `${id}_isSet`, "In use", show);
  inner.node.children[0].after(isSet.node);
  show();
  return { node: inner.node, read: () => (isSet.read() ? inner.read() : null) };
}

function tick(value, id, label, changed = () => {}) {
  const input = el("input", { type: "checkbox", id, checked: Boolean(value), onchange: changed });
  return { node: el("p", { class: "tick" }, input, el("label", { for: id }, label)), read: () => input.checked };
}

function choice(schema, value, id, label) {
  const input = select(schema.enum, value, { id });
  return { node: field(label, input), read: () => schema.enum[input.selectedIndex] };
}

/** Several of a few, the first first. */
function order(schema, value, id, label) {
  const values = schema.items.enum;
  const inputs = values.map((each, index) => select(["–", ...values], value?.[index] ?? "–", { id: `${id}_${index}`, "aria-label": `${label}, number ${index + 1}` }));
  const node = el("div", { class: "field", role: "group", "aria-label": label }, el("span", { class: "label" }, label), el("div", { class: "row" }, inputs));
  return { node, read: () => inputs.map((input) => input.value).filter((each) => each !== "–") };
}

function number(schema, value, id, label) {
  const kinds = schema.anyOf ?? [schema];
  const single = kinds.flatMap((each) => each.enum ?? []);
  const range = kinds.find((each) => each.maximum != null) ?? {};
  const least = Math.min(...single, range.minimum ?? 0);
  const input = el("input", { type: "number", id, min: least, max: range.maximum, step: "1", required: true, value: String(value ?? "") });
  const bounds = range.maximum == null ? null : [...single, `${range.minimum} to ${range.maximum}`].join(", ");
  return { node: field(label, input, [bounds, tidy(schema.description ?? "")].filter(Boolean).join(". ")), read: () => Number(input.value) };
}

function text(schema, value, id, label) {
  const input = el("input", { id, value: value ?? "", maxlength: schema.maxLength, pattern: schema.pattern, autocomplete: "off" });
  return { node: field(label, input, schema.pattern ? "HH:MM" : tidy(schema.description ?? "")), read: () => input.value.trim() || null };
}

function select(values, value, attributes) {
  return el("select", attributes, values.map((each) => el("option", { value: String(each), selected: each === value }, String(each))));
}

const tidy = (description) => description.replaceAll("`", "");

/** What of `after` is not as before; undefined when nothing is. Lists and groups that were missing count as a whole. */
function difference(before, after) {
  const isGroup = (value) => value != null && typeof value === "object" && !Array.isArray(value);
  if (!isGroup(before) || !isGroup(after)) return JSON.stringify(before) === JSON.stringify(after) ? undefined : after;
  const changed = Object.entries(after).map(([name, value]) => [name, difference(before[name], value)]).filter(([, value]) => value !== undefined);
  return changed.length ? Object.fromEntries(changed) : undefined;
}
