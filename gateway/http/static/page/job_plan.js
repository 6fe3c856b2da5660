// What a job would do, as the gateway says it without doing it.

import { el, put } from "./dom.js";
import { number } from "./format.js";
import { devices, reasonWords, skippedWords } from "./job_words.js";
import { named } from "./names.js";
import { notice, tell } from "./notice.js";

const MOST_NAMED = 50;
const NO_BROKER = "The gateway cannot reach its broker, so which devices are online is not known. The resets are kept, and reach the devices later.";

export class JobPlan {
  /** How many targets there are; null until the gateway has said it. */
  total = null;

  /** `ask()`: the gateway's answer to a dry run; `hasBroker()`: whether presence is known; `told(plan)`: there is one. */
  constructor(ask, hasBroker, told) {
    Object.assign(this, { ask, hasBroker, told });
    this.list = el("ul", {});
    this.wait = el("p", { class: "quiet" }, "The gateway is asked what would happen …");
    this.left = el("details", { hidden: true });
    this.wrong = notice();
    this.node = el("div", { class: "plan", role: "status" }, this.wait, this.list, this.left, this.wrong);
  }

  async load() {
    this.total = null;
    this.wait.hidden = false;
    try {
      this.#tell(await this.ask());
      tell(this.wrong, null);
    } catch (error) {
      put(this.list);
      tell(this.wrong, error);
    }
    this.wait.hidden = true;
  }

  #tell(plan) {
    this.total = plan.total;
    put(this.list, planWords(plan, this.hasBroker()).map((each) => el("li", {}, each)));
    const skipped = plan.devices.filter((each) => each.outcome === "skipped");
    this.left.hidden = !skipped.length;
    put(this.left, el("summary", {}, "Which are left out"), el("ul", {},
      skipped.slice(0, MOST_NAMED).map((each) => el("li", {}, named(each.device_id), ` (${reasonWords(each.reason)})`)),
      (skipped.length > MOST_NAMED || plan.has_more) && el("li", {}, "The job’s page lists all of them.")));
    this.told(plan);
  }
}

function planWords({ total, counts, waits }, isKnown) {
  const reset = counts.would_queue ?? 0;
  const left = skippedWords(counts);
  return [
    [el("strong", {}, devices(reset)), ` of ${number(total)} ${reset === 1 ? "is" : "are"} reset to factory settings. The list is fixed when the job is created.`],
    left.length && `${devices(total - reset)} ${total - reset === 1 ? "is" : "are"} left out (${left.join("; ")}).`,
    ...(isKnown ? waitWords(waits) : [NO_BROKER]),
    "When its turn comes, a device is unbound from its end user at once, its token is revoked, and its other open commands are cancelled. "
    + "It then wipes its token, its pairing and its WiFi networks.",
    "A device that is unbound or bound again before its turn is left out.",
    "Cancelling the job takes back what no device has received. Nothing undoes a reset that was delivered.",
  ].filter(Boolean);
}

/** `waits`: how many of those that would be reset cannot be reached now. */
function waitWords({ offline = 0, never_seen: silent = 0, bluetooth_only: bluetooth = 0 } = {}) {
  const away = [offline && `${number(offline)} offline now`, silent && `${number(silent)} never heard`].filter(Boolean);
  return [
    away.length > 0 && `${away.join(", ")}: the reset waits for each of them, and never expires.`,
    bluetooth > 0 && `${number(bluetooth)} last seen over Bluetooth, by a relay, which brings no reset: it waits for WiFi or cellular.`,
  ];
}
