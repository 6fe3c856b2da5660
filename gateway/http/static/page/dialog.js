// Asks before something is done, says what will happen, and takes what is needed for it.

import { ApiError } from "./api.js";
import { el, put } from "./dom.js";
import { named } from "./names.js";

/**
 * `says`: sentences of what will happen. `fields`: elements to fill in, if any. `check`: words to be ticked before it can
 * be done, if any. `last`: an element to fill in at the end, always in sight. `tone` is that of the button. `run` does it; what the gateway refuses is said in the dialog, where it
 * can be tried again. `ended`: an AbortController, aborted when the dialog is closed. Resolves to what `run` gave (true when that is nothing), or to false.
 */
export function ask({ title, says = [], fields = null, last = null, check = null, action, tone = "bad", ended = new AbortController(), run }) {
  return new Promise((done) => {
    const parts = dialog({ title, says, fields, last, check, action, tone });
    let result = false;
    parts.form.addEventListener("submit", async (event) => {
      event.preventDefault();
      result = await tried(parts, run, ended.signal);
      if (result !== false) parts.node.close();
    });
    open(parts.node, () => (ended.abort(), done(result)));
    parts.node.querySelector(".fields :is(input, select)")?.focus();
  });
}

/** Show something once. It is closed by its button alone, so that no stray key loses it. */
export function tell({ title, says = [], content, action }) {
  return new Promise((done) => {
    const stop = el("button", { type: "button", class: "main", onclick: () => node.close() }, action);
    const node = el("dialog", { "aria-labelledby": "asked", class: "wide", closedby: "none", oncancel: (event) => event.preventDefault(),
      onkeydown: (event) => event.key === "Escape" && event.preventDefault() },
      el("form", { onsubmit: (event) => event.preventDefault() },
        el("h2", { id: "asked" }, title), says.map((each) => el("p", {}, each)), content, el("p", { class: "buttons" }, stop)));
    open(node, done);
  });
}

function open(node, closed) {
  node.addEventListener("close", () => (node.remove(), closed()));
  document.body.append(node);
  node.showModal();
}

function dialog({ title, says, fields, last, check, action, tone }) {
  const go = el("button", { type: "submit", class: tone, disabled: check != null }, action);
  const stop = el("button", { type: "button", onclick: () => node.close() }, fields ? "Cancel" : "Leave it as it is");
  const tick = check && el("input", { type: "checkbox", id: "sure", onchange: () => (go.disabled = !tick.checked) });
  const refused = el("p", { class: "error", role: "alert" });
  const form = el("form", {},
    el("h2", { id: "asked" }, title),
    el("ul", { id: "happens", hidden: !says.length }, says.map((each) => el("li", {}, each))),
    fields && el("div", { class: "fields" }, fields),
    last,
    check && el("p", { class: "sure" }, tick, el("label", { for: "sure" }, check)),
    refused,
    el("p", { class: "buttons" }, stop, go));
  const node = el("dialog", { "aria-labelledby": "asked", "aria-describedby": says.length ? "happens" : null, class: fields && "wide" }, form);
  return { node, form, go, refused, action };
}

async function tried({ go, refused, action }, run, ended) {
  go.disabled = true;
  put(go, "One moment …");
  put(refused);
  try {
    return (await run()) ?? true;
  } catch (error) {
    if (ended.aborted) return false;
    if (!(error instanceof ApiError)) throw error;
    put(refused, named(error.message));
    return false;
  } finally {
    go.disabled = false;
    put(go, action);
  }
}

/** An input with its label, and what helps to fill it in. */
export function field(label, input, help = null) {
  if (help) input.setAttribute("aria-describedby", `${input.id}_help`);
  return el("div", { class: "field" }, el("label", { for: input.id }, label), input,
    help && el("small", { id: `${input.id}_help` }, help));
}
