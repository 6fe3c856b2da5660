// What is selected in the list, in words, and what can be done to it.

import { el, say } from "./dom.js";
import { number } from "./format.js";

const devices = (count) => (count === 1 ? "1 device" : `${number(count)} devices`);

export class SelectionBar {
  /** `all()`: select all that match; `actions`: `[words, run, tone]` of each button. */
  constructor(selection, all, actions) {
    this.selection = selection;
    this.count = el("p", { role: "status" });
    this.all = el("button", { type: "button", hidden: true, onclick: all });
    this.does = el("span", { class: "actions" },
      actions.map(([words, run, tone]) => el("button", { type: "button", class: tone, onclick: run }, words)),
      el("button", { type: "button", class: "plain", onclick: () => selection.clear() }, "Clear"));
    this.node = el("section", { class: "selection", "aria-label": "Selected devices" }, this.count, this.all, this.does);
    this.box = el("input", { type: "checkbox", id: "selectPage", onchange: () => selection.setPage(this.box.checked) });
    this.page = el("span", { class: "tick" }, this.box, el("label", { for: "selectPage" }, "Select this page"));
    this.tell(0, true, false);
  }

  /** `found`: how many the filter finds; `isFiltered`: whether it leaves any out. */
  tell(found, isExact, isFiltered) {
    const { size, filter, ofPage } = this.selection;
    this.box.checked = ofPage === true;
    this.box.indeterminate = ofPage == null;
    const all = isFiltered ? "that match the filters" : "of the fleet";
    const known = `${isExact ? "" : "more than "}${devices(found)}`;
    say(this.count, !size ? "" : filter ? `All ${known} ${all} selected` : `${devices(size)} selected`);
    say(this.all, isFiltered ? `Select all ${known} that match` : `Select all ${known}`);
    this.all.hidden = filter != null || ofPage !== true || found <= size;
    this.node.classList.toggle("none", !size);
    this.does.hidden = !size;
  }
}
