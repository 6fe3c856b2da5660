// A table that is loaded by a cursor, as many rows as are shown, and kept up to date in place.

import { el, keyed } from "./dom.js";

const PAGE = 20;
const MOST_A_PAGE = 100;

export class PagedRows {
  #shown = PAGE;
  #ended = new AbortController();

  /** `fetch({limit, cursor}, signal)` gives a page of the API; `make()` a row and what updates it; `failed(error)`: null when all is well. */
  constructor({ columns, caption, css, nothing, key, make, fetch, failed }) {
    Object.assign(this, { key, make, fetch, failed });
    this.body = el("tbody", {});
    this.nothing = el("p", { class: "quiet", hidden: true }, nothing);
    this.more = el("button", { type: "button", hidden: true, onclick: () => this.#grow() }, "Show more");
    this.table = el("table", { class: css, hidden: true }, el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, columns.map((each) => el("th", { scope: "col" }, each)))), this.body);
    this.node = el("div", { class: "paged" }, this.nothing, this.table, this.more);
  }

  /** As many as are shown now. */
  async load(signal) {
    const items = [];
    let cursor = null;
    do {
      const limit = Math.min(MOST_A_PAGE, this.#shown - items.length);
      const page = await this.fetch({ limit, cursor }, signal);
      items.push(...page.data);
      cursor = page.next_cursor;
    } while (cursor != null && items.length < this.#shown);
    const once = [...new Map(items.map((each) => [this.key(each), each])).values()]; // one may have moved between two pages
    keyed(this.body, once, this.key, this.make);
    this.nothing.hidden = items.length > 0;
    this.table.hidden = !items.length;
    this.more.hidden = cursor == null;
  }

  close() {
    this.#ended.abort();
  }

  async #grow() {
    this.#shown += PAGE;
    this.more.disabled = true;
    try {
      await this.load(this.#ended.signal);
      this.failed(null);
    } catch (error) {
      if (!this.#ended.signal.aborted) this.failed(error);
    }
    this.more.disabled = false;
  }
}
