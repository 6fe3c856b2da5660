// The list of devices, a page of it at a time, kept up to date in place.

import { bar, connectionMark, isFull, isLow, presence, spaced, used } from "./devices.js";
import { el, keyed, say, set } from "./dom.js";
import { NOTHING, ago, called, dbm, megabytes, percent, since } from "./format.js";
import { isolated, visible } from "./names.js";
import { orderOf } from "./order.js";
import { toDevice } from "./routes.js";
import { tagLine } from "./tags.js";

/** Each column with its class, its heading, and what the API sorts by, if it can. */
const COLUMNS = [
  ["name", "Device", "name"], ["serial", "Serial number", "serial_number"], ["state", "Connection"], ["battery", "Battery"],
  ["storage", "Storage"], ["signal", "Signal"], ["doing", "Doing"], ["owner", "Bound to"], ["seen", "Last heartbeat"],
  ["registered", "Registered", "created_at"], ["changed", "Changed", "updated_at"],
];

export class DeviceTable {
  #heads = [];

  /** `selection`: null where nothing can be selected; `sort(column)`: the head of a column was pressed. */
  constructor(selection, sort) {
    this.selection = selection;
    this.body = el("tbody", {});
    this.node = el("table", { class: "devices" },
      el("caption", { class: "unseen" }, "Devices"),
      el("thead", {}, el("tr", {},
        selection && el("th", { scope: "col", class: "tickbox" }, el("span", { class: "unseen" }, "Selected")),
        COLUMNS.map((column) => this.#head(column, sort)))),
      this.body);
  }

  /** Mark the column that the list is sorted by. */
  order(query) {
    const { sort, order } = orderOf(query);
    for (const { node, by } of this.#heads) set(node, "aria-sort", by === sort && (order === "asc" ? "ascending" : "descending"));
  }

  /** `isKnown`: whether their presence is. */
  tell(devices, isKnown) {
    keyed(this.body, devices.map((device) => ({ ...device, presence: presence(device, isKnown) })), (device) => device.id, () => row(this.selection));
  }

  /** Say again which rows are selected. */
  tick() {
    for (const box of this.body.querySelectorAll(".tickbox input")) box.checked = this.selection.has(box.value);
  }

  #head([name, heading, by = null], sort) {
    const button = by && el("button", { type: "button", class: "sort", onclick: () => sort(by) }, heading);
    const node = el("th", { scope: "col", class: name }, button ?? heading);
    if (by) this.#heads.push({ node, by });
    return node;
  }
}

function row(selection) {
  const [title, serial, model, bound] = ["bdi", "bdi", "bdi", "bdi"].map((tag) => el(tag, {}));
  const link = el("a", {}, title);
  const connection = connectionMark();
  const [battery, storage] = [bar(), bar()];
  const [signal, doing, owner] = [el("td", { class: "signal figure" }), el("td", { class: "doing" }), el("td", { class: "owner" }, bound)];
  const [seen, registered, changed] = [ago(null), ago(null), ago(null)];
  const tags = tagLine();
  const tick = selection && tickbox(selection);
  const node = el("tr", {},
    tick?.node,
    el("th", { scope: "row", class: "name" }, link, tags.node),
    el("td", { class: "serial" }, serial, el("small", {}, model)),
    el("td", { class: "state" }, connection.node),
    el("td", { class: "battery" }, battery.node),
    el("td", { class: "storage" }, storage.node),
    signal, doing, owner,
    el("td", { class: "seen" }, seen), el("td", { class: "registered" }, registered), el("td", { class: "changed" }, changed));
  const update = (device) => {
    tick?.tell(device);
    link.href = toDevice(device.id);
    say(title, visible(called(device)));
    tags.tell(device.tags ?? []);
    say(serial, visible(device.serial_number));
    say(model, device.model);
    connection.tell(device.presence);
    battery.tell(device.battery_percent, percent(device.battery_percent), isLow(device));
    storage.tell(used(device), used(device) == null ? megabytes(device.storage_used_mb) : percent(used(device)), isFull(device));
    say(signal, dbm(device.signal_strength_dbm));
    say(doing, device.recording_state?.device_state == null ? NOTHING : spaced(device.recording_state.device_state));
    say(bound, device.end_user_id ?? "Unbound");
    owner.classList.toggle("quiet", device.end_user_id == null);
    since(seen, device.last_heartbeat_at);
    since(registered, device.created_at);
    since(changed, device.updated_at);
  };
  return [node, update];
}

/** The box of a row. The whole cell takes the click, so that a thumb does not open the device instead. */
function tickbox(selection) {
  const box = el("input", { type: "checkbox", onchange: () => selection.set(box.value, box.checked) });
  const node = el("td", { class: "tickbox" }, el("label", {}, box));
  const tell = (device) => {
    box.value = device.id;
    box.checked = selection.has(device.id);
    set(box, "aria-label", `Select ${isolated(called(device))}`);
  };
  return { node, tell };
}
