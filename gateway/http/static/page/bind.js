// Binding a device, and what its firmware needs then, which is shown this once.

import { onceKey } from "./api.js";
import { ask, field, tell } from "./dialog.js";
import { el, put } from "./dom.js";
import { called } from "./format.js";
import { named } from "./names.js";

const COPIED_MS = 2_000;

/** `reset`: the open reset of the device, if there is one; it has to be cancelled for that. */
export async function askBind(api, device, reset) {
  const user = el("input", { id: "endUser", required: true, placeholder: "eu_42", autocomplete: "off", spellcheck: "false", maxlength: "67" });
  const once = onceKey();
  const bound = await ask({
    title: ["Bind ", named(called(device)), "?"],
    says: reset ? ["Its reset is still open. It is cancelled, and its old token is revoked. Do this only when the device was reset by hand."] : [],
    fields: field("End user", user, "“eu_” and 1 to 64 letters and digits."),
    check: reset ? "The device was reset by hand." : null,
    action: "Bind the device",
    tone: reset ? "bad" : "main",
    run: () => api.send("POST", `devices/${device.id}/bind`, { end_user_id: user.value.trim(), supersede_reset: Boolean(reset) }, once),
  });
  if (bound) await show(bound.data, bound.headers.get("X-Broker-Synced") === "false");
  return Boolean(bound);
}

function show(bound, isLate) {
  const { device_token: token, mqtt, grant_key: grantKey } = bound;
  const { topics, ...access } = mqtt;
  const rows = [["Device token", token], ...Object.entries(access).map(([name, value]) => [`MQTT ${name.replaceAll("_", " ")}`, String(value)]),
    ["Grant key", JSON.stringify(grantKey)]];
  return tell({
    title: ["Bring this to ", named(called(bound))],
    says: ["The token and the MQTT password are shown this once: the gateway keeps only hashes. When they are lost, unbind the device and bind it again.",
      ...(isLate ? ["The broker does not know the password yet: until it does, the device is refused there."] : [])],
    content: [
      el("dl", { class: "secrets" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("code", {}, value), copy(value, name))))),
      el("p", {}, copy(JSON.stringify({ device_token: token, mqtt, grant_key: grantKey }, null, 2), "all as JSON", "Copy all as JSON")),
    ],
    action: "I have it",
  });
}

/** A button that copies. Where the browser gives no clipboard (HTTP beyond this machine), it selects the text. */
function copy(value, name, words = "Copy") {
  const button = el("button", { type: "button", "aria-label": `Copy ${name}`, onclick: async () => {
    const isCopied = await navigator.clipboard?.writeText(value).then(() => true, () => false);
    const text = button.parentElement.querySelector("code");
    if (!isCopied && text) getSelection().selectAllChildren(text);
    put(button, isCopied ? "Copied" : "Press Ctrl+C");
    setTimeout(() => put(button, words), COPIED_MS);
  } }, words);
  return button;
}
