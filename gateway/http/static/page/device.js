// One device: how it is, how it was, what it was told, what happened to it, and what can be done to it.

import { askCancel, askReset, askUnbind, isOpen, RESET } from "./actions.js";
import { commandItem, ResetProgress } from "./commands.js";
import { askBind } from "./bind.js";
import { bar, connectionMark, isFull, isLow, presence, spaced, used } from "./devices.js";
import { el, say } from "./dom.js";
import { askEdit } from "./edit.js";
import { eventItem } from "./events.js";
import { binding, Facts, identity, metadata, settings } from "./facts.js";
import { ago, called, dbm, megabytes, NOTHING, percent, since } from "./format.js";
import { isolated, visible } from "./names.js";
import { notice, tell } from "./notice.js";
import { Paced } from "./paced.js";
import { Plots } from "./plots.js";
import { toFleet } from "./routes.js";
import { askSend } from "./send.js";
import { askSettings } from "./settings.js";
import { askTags, tagLine } from "./tags.js";
import { Trail } from "./trail.js";

const EVERY_MS = 1_000;
const LINKS = { wifi: "WiFi", "4g": "4G", ble: "Bluetooth, by a relay" };

export class DeviceView {
  title = "Device · Device gateway";
  #stale = true;
  #loaded = new Paced((signal) => this.#load(signal), EVERY_MS);

  constructor({ api, mayWrite, keyId, readiness, fleetAt }, id) {
    Object.assign(this, { api, id, mayWrite, readiness, fleetAt });
    const cancel = (command) => this.#done(askCancel(api, this.device, command));
    const page = (what) => (cursor) => api.get(`devices/${id}/${what}`, { limit: 20, cursor });
    this.commands = new Trail("Commands", "It was never told anything.", page("commands"), commandItem(mayWrite, cancel));
    this.events = new Trail("Events", "Nothing has happened to it.", page("events"), eventItem(keyId));
    this.reset = new ResetProgress(mayWrite, cancel);
    this.plots = new Plots(api, id);
    const button = (words, ask) => mayWrite && el("button", { type: "button", onclick: () => this.#ask(ask) }, words);
    this.facts = [
      new Facts("Binding", binding), new Facts("Metadata", metadata, "None is set.", button("Edit …", askEdit)),
      new Facts("Device", identity), new Facts("Settings", settings, "None.", button("Change …", askSettings)),
    ];
    this.now = nowStrip();
    this.wrong = notice();
    this.#build();
    this.#loaded.ask();
  }

  look(all = false) {
    this.#stale ||= all;
    this.#loaded.ask();
  }

  happened(event) {
    if (event.data.device_id === this.id) this.look(true);
  }

  close() {
    this.#loaded.stop();
    this.plots.close();
  }

  #build() {
    this.heading = el("bdi", {}, "Device");
    this.connection = connectionMark();
    const button = (words, ask, tone = null) => el("button", { type: "button", class: tone, onclick: () => this.#ask(ask) }, words);
    this.tags = tagLine(true);
    this.tagButton = button("Tags …", askTags);
    this.sendButton = button("Send a command …", askSend);
    this.bindButton = button("Bind …", (api, device) => askBind(api, device, this.#openReset()));
    this.unbindButton = button("Unbind …", askUnbind);
    this.resetButton = button("Reset …", askReset, "bad");
    this.actions = el("div", { class: "actions", hidden: true }, this.tagButton, this.sendButton, this.bindButton, this.unbindButton, this.resetButton);
    this.body = el("div", { class: "body", hidden: true },
      this.reset.node, this.now.node, this.plots.node,
      el("div", { class: "columns" }, this.commands.node, this.events.node),
      el("div", { class: "all facts" }, this.facts.map((each) => each.node)));
    this.node = el("div", { class: "device" },
      el("p", { class: "back" }, el("a", { href: this.fleetAt ?? toFleet() }, "← Devices")),
      el("div", { class: "title" }, el("h1", { tabindex: "-1" }, this.heading), this.connection.node, this.tags.node, this.actions),
      this.wrong, this.body);
  }

  async #load(signal) {
    const all = this.#stale;
    this.#stale = false;
    try {
      const [device, state] = await Promise.all(["", "/state"].map((part) => this.api.get(`devices/${this.id}${part}`, {}, signal)));
      if (all) await Promise.all([this.commands.load(), this.events.load()]);
      if (!signal.aborted) this.#tell(device, state);
      tell(this.wrong, null);
    } catch (error) {
      this.#stale ||= all;
      if (!signal.aborted) this.#failed(error);
    }
  }

  #failed(error) {
    if (error.status === 404) this.body.hidden = this.actions.hidden = true;
    tell(this.wrong, error);
  }

  #tell(device, state) {
    Object.assign(this, { device, state });
    this.title = document.title = `${isolated(called(device))} · Device gateway`;
    say(this.heading, visible(called(device)));
    this.connection.tell(presence(device, this.readiness.hasBroker));
    this.tags.tell(device.tags ?? []);
    this.now.tell(device, state);
    this.facts.forEach((each) => each.tell(device));
    this.reset.tell(this.commands.items, this.#known());
    this.actions.hidden = !this.mayWrite;
    this.resetButton.hidden = this.#openReset() != null;
    this.unbindButton.hidden = this.sendButton.hidden = device.status !== "bound";
    this.bindButton.hidden = device.status === "bound";
    this.body.hidden = false;
    this.plots.tell(device);
  }

  /** The device with what a promise about it depends on. */
  #known() {
    return { ...this.device, lastSeenBy: this.state.last_seen_by, hasBroker: this.readiness.hasBroker };
  }

  #openReset() {
    return this.commands.items.find((each) => each.type === RESET && isOpen(each));
  }

  async #ask(question) {
    try {
      await this.#done(question(this.api, this.#known()));
    } catch (error) {
      tell(this.wrong, error);
    }
  }

  /** After a question was answered with yes: see what has become of it. */
  async #done(asked) {
    if (await asked) this.look(true);
  }
}

/** How it is now, in a row. */
function nowStrip() {
  const [battery, storage] = [bar(), bar()];
  const [signal, doing, link] = ["span", "span", "span"].map((name) => el(name, {}));
  const seen = ago(null);
  const cell = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const node = el("section", { class: "panel", "aria-label": "Now" }, el("dl", { class: "now" },
    cell("Battery", battery.node), cell("Storage", storage.node), cell("Signal", signal), cell("Doing", doing),
    cell("Last heartbeat", seen), cell("Seen over", link)));
  const tellNow = (device, state) => {
    const part = used(device);
    battery.tell(device.battery_percent, percent(device.battery_percent), isLow(device));
    storage.tell(part, part == null ? megabytes(device.storage_used_mb) : `${percent(part)} of ${megabytes(device.storage_total_mb)}`, isFull(device));
    say(signal, dbm(device.signal_strength_dbm));
    say(doing, device.recording_state?.device_state == null ? NOTHING : spaced(device.recording_state.device_state));
    say(link, LINKS[state.last_seen_by] ?? NOTHING);
    since(seen, device.last_heartbeat_at);
  };
  return { node, tell: tellNow };
}
