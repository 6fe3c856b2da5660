// The fleet in six figures; each leads to the devices that it counts.

import { el, say, set } from "./dom.js";
import { NOTHING, number } from "./format.js";
import { toFleet } from "./routes.js";

const FIGURES = [
  ["total_count", "Devices", {}, ""],
  ["online_count", "Online", { connection: "online" }, "good"],
  ["offline_count", "Offline", { connection: "offline", seen: "true" }, "off"],
  ["never_seen_count", "Never seen", { seen: "false" }, "off"],
  ["low_battery_count", "Low battery", { condition: "low_battery" }, "warn"],
  ["storage_full_count", "Storage full", { condition: "storage_full" }, "warn"],
  ["pending_reset_count", "Pending resets", { condition: "reset_pending" }, "waits"],
];

const PRESENCE = ["online_count", "offline_count"];

export class Glance {
  constructor() {
    this.tiles = FIGURES.map(([name, label, filter, tone]) => tile(name, label, filter, tone));
    this.node = el("nav", { "aria-label": "Fleet at a glance", class: "glance" },
      el("ul", {}, this.tiles.map((each) => el("li", {}, each.link))));
  }

  /** `isKnown`: whether presence is; else the last counts stand small. */
  tell(stats, isKnown) {
    this.stats = stats;
    for (const each of this.tiles) {
      const isUnknown = !isKnown && PRESENCE.includes(each.name);
      say(each.count, isUnknown ? "?" : number(stats[each.name]));
      say(each.share, isUnknown ? `${number(stats[each.name])} at last` : share(each.name, stats));
      each.link.classList.toggle("unknown", isUnknown);
      each.link.classList.toggle("some", stats[each.name] > 0);
    }
  }

  /** Mark the figure that counts what this query finds; how many that are, or null when no figure does. */
  select(query) {
    const wanted = toFleet({ ...query, offset: null, sort: null, order: null });
    const chosen = this.tiles.find((each) => toFleet(each.filter) === wanted);
    for (const each of this.tiles) set(each.link, "aria-current", each === chosen && "true");
    return chosen;
  }
}

function tile(name, label, filter, tone) {
  const count = el("strong", {}, NOTHING);
  const share = el("small", {});
  const link = el("a", { href: toFleet(filter), class: `tile ${tone}` }, el("span", {}, label), count, share);
  return { name, filter, count, share, link };
}

function share(name, stats) {
  if (name === "total_count" || !stats.total_count || !stats[name]) return "";
  const part = (100 * stats[name]) / stats.total_count;
  return part < 1 ? "under 1 %" : `${part < 100 ? Math.min(99, Math.round(part)) : 100} %`;
}
