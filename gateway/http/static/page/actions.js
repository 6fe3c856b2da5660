// What can be done to a device, and the words that say what it does.

import { onceKey } from "./api.js";
import { ask, field } from "./dialog.js";
import { el } from "./dom.js";
import { called, words } from "./format.js";
import { named } from "./names.js";

export const RESET = "factory_reset";
export const isOpen = (command) => command.status === "pending" || command.status === "delivered";
/** A reset can be cancelled until the device has said that it has it. */
export const canCancel = (command) => isOpen(command) && !(command.type === RESET && command.status === "delivered");

/** Whether a device was seen over Bluetooth last: a relay brings its heartbeats, and takes nothing to it. */
export const isOutOfReach = (device) => device.lastSeenBy === "ble";
export const BLUETOOTH_ONLY = "It was last seen over Bluetooth, by a relay, which brings no reset to it. The reset waits for WiFi or cellular, and never expires.";

const RECORDINGS = {
  keep: ["Keep", "They stay on the device. It does not upload them once it is bound to another person, if its firmware follows the protocol."],
  wipe: ["Wipe", "Recordings that are not uploaded yet are lost. Firmware that does not know this wish keeps them: the certificate says what the device reported."],
};
export const MAX_REASON = 200;

/** What is to be done with recordings, to be chosen: `value()` is the API's word for it. */
export function recordingsField() {
  const choices = Object.entries(RECORDINGS).map(([value, [label, what]]) => {
    const input = el("input", { type: "radio", name: "recordings", id: `recordings_${value}`, value, checked: value === "keep", "aria-describedby": `what_${value}` });
    return el("p", { class: "tick" }, input, el("label", { for: input.id }, label), el("small", { id: `what_${value}` }, what));
  });
  const value = () => choices.map((each) => each.firstElementChild).find((each) => each.checked).value;
  return { node: el("fieldset", {}, el("legend", {}, "Recordings on the device"), choices), value };
}

export function askReset(api, device) {
  const reason = el("input", { id: "reason", maxlength: MAX_REASON, autocomplete: "off" });
  const recordings = recordingsField();
  const once = onceKey();
  return ask({
    title: ["Reset ", named(called(device)), " to factory settings?"],
    says: [...whoLoses(device), ...whenWiped(device),
      "Other commands that are still open are cancelled. Its record, history and metadata stay.",
      "Cancelling the reset later does not undo this. Until the device says that it has the reset, a cancel only spares it the wipe: "
      + "it stays unbound, its token is revoked, and it has to be bound again."],
    fields: [
      recordings.node,
      field("Reason", reason, "Optional. It is kept in the audit trail and on the certificate, which outlives a person's data: name no person here."),
    ],
    check: ["Yes, wipe ", named(device.serial_number), "."],
    action: "Reset the device",
    run: () => {
      const asked = { recordings: recordings.value(), ...(reason.value.trim() && { reason: reason.value.trim() }) };
      return api.post(`devices/${device.id}/reset`, asked, once);
    },
  });
}

function whoLoses(device) {
  if (device.end_user_id == null) return [];
  return [["It is unbound from ", named(device.end_user_id), " at once. Its token is good for nothing but this reset, and then for nothing at all."]];
}

function whenWiped(device) {
  const wipes = "The device wipes its token, its pairing and its WiFi networks";
  if (device.end_user_id == null) {
    return [`It is bound to nobody: unless it still holds a token, nothing can fetch the reset, which then waits.`, `${wipes} when it gets it.`];
  }
  if (isOutOfReach(device)) return [`${wipes} when it is back on WiFi or cellular. ${BLUETOOTH_ONLY}`];
  if (!device.hasBroker) {
    return [`${wipes} when the broker is back: the gateway cannot reach it now, so whether the device is online is not known. The reset is kept, and never expires.`];
  }
  if (device.connection === "online") return [`${wipes} within seconds: it is online.`];
  return [`${wipes} when it is back. It is offline now; the reset waits for it, and never expires.`];
}

export function askUnbind(api, device) {
  return ask({
    title: ["Unbind ", named(called(device)), "?"],
    says: [
      [named(device.end_user_id), " loses it at once: its token is revoked, and its connection is cut", device.hasBroker ? "." : " when the broker can be reached again."],
      "Commands that are still open are cancelled.",
      "It is not wiped: pairing and WiFi networks stay on it. To wipe it, reset it instead; after this that waits until it is bound again.",
    ],
    action: "Unbind the device",
    run: posting(api, `devices/${device.id}/unbind`),
  });
}

export function askCancel(api, device, command) {
  const reset = command.type === RESET;
  return ask({
    title: [`Cancel “${words(command.type)}” for `, named(called(device)), "?"],
    says: reset
      ? ["The gateway first reads what the broker holds: if the device has said that it has the reset, nothing is cancelled.",
        "The device is not wiped, unless it gets the reset at this very moment.",
        "This brings nothing back: the device stays unbound, its old token is revoked, and it has to be bound again."]
      : ["The device is not told to do it any more. If it has the command already, it may still do it."],
    action: "Cancel the command",
    run: posting(api, `devices/${device.id}/commands/${command.id}/cancel`),
  });
}

/** Sends it under one `Idempotency-Key`: tried again after a lost answer, it is done once. */
function posting(api, path) {
  const once = onceKey();
  return () => api.post(path, {}, once);
}
