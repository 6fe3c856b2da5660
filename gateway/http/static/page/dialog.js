// Asks before something that cannot be taken back, and says what will happen.

import { ApiError } from "./api.js";
import { el, put } from "./dom.js";
import { named } from "./names.js";

/**
 * `says`: sentences of what will happen. `check`: words to be ticked before it can be done, if any. `run` does it; what
 * the gateway refuses is said in the dialog, where it can be tried again. Resolves to whether it was done.
 */
export function ask({ title, says, check = null, action, run }) {
  return new Promise((done) => {
    const parts = dialog(title, says, check, action);
    let over = false;
    parts.form.addEventListener("submit", async (event) => {
      event.preventDefault();
      over = await tried(parts, run);
      if (over) parts.node.close();
    });
    parts.node.addEventListener("close", () => (parts.node.remove(), done(over)));
    document.body.append(parts.node);
    parts.node.showModal();
  });
}

function dialog(title, says, check, action) {
  const go = el("button", { type: "submit", class: "bad", disabled: check != null }, action);
  const stop = el("button", { type: "button", onclick: () => node.close() }, "Leave it as it is");
  const tick = check && el("input", { type: "checkbox", id: "sure", onchange: () => (go.disabled = !tick.checked) });
  const refused = el("p", { class: "error", role: "alert" });
  const form = el("form", {},
    el("h2", { id: "asked" }, title),
    el("ul", { id: "happens" }, says.map((each) => el("li", {}, each))),
    check && el("p", { class: "sure" }, tick, el("label", { for: "sure" }, check)),
    refused,
    el("p", { class: "buttons" }, stop, go));
  const node = el("dialog", { "aria-labelledby": "asked", "aria-describedby": "happens" }, form);
  return { node, form, go, refused, action };
}

async function tried({ go, refused, action }, run) {
  go.disabled = true;
  put(go, "One moment …");
  put(refused);
  try {
    await run();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    put(refused, named(error.message));
    return false;
  } finally {
    go.disabled = false;
    put(go, action);
  }
}
