// Telling a device to do something.

import { onceKey } from "./api.js";
import { ask, field } from "./dialog.js";
import { el } from "./dom.js";
import { called, words } from "./format.js";
import { named } from "./names.js";

const TYPES = {
  reboot: "It restarts.",
  start_recording: "It begins to record.",
  stop_recording: "It ends its recording.",
  trigger_upload: "It uploads what it has recorded.",
};
const TIMES = [["5 minutes", 300], ["1 hour", 3_600], ["24 hours", 86_400]];

export function askSend(api, device) {
  const types = Object.entries(TYPES).map(([type, what], index) => {
    const input = el("input", { type: "radio", name: "type", id: `type_${type}`, value: type, checked: index === 0, "aria-describedby": `what_${type}` });
    return el("p", { class: "tick" }, input, el("label", { for: input.id }, words(type)), el("small", { id: `what_${type}` }, what));
  });
  const time = el("select", { id: "ttl" }, TIMES.map(([text, seconds]) => el("option", { value: String(seconds) }, text)));
  const once = onceKey();
  return ask({
    title: ["Send a command to ", named(called(device))],
    says: device.hasBroker && device.connection === "online" ? [] : ["It may not be there now: the command waits for it as long as is chosen here, and expires then."],
    fields: [el("fieldset", {}, el("legend", {}, "Command"), types), field("Good for", time)],
    action: "Send the command",
    tone: "main",
    run: () => {
      const type = types.map((each) => each.firstElementChild).find((each) => each.checked).value;
      return api.post(`devices/${device.id}/commands`, { type, ttl_seconds: Number(time.value) }, once);
    },
  });
}
