// A list that begins with the newest and goes on by a cursor: a device's commands, a device's events.

import { el, keyed } from "./dom.js";
import { ApiError } from "./api.js";

export class Trail {
  #items = new Map();
  #cursor = null;

  /** `fetch(cursor)` gives a page of the API; `make(item)` a node and what updates it. */
  constructor(heading, nothing, fetch, make) {
    Object.assign(this, { fetch, make });
    this.list = el("ol", { class: "trail" });
    this.nothing = el("p", { class: "quiet", hidden: true }, nothing);
    this.more = el("button", { type: "button", hidden: true, onclick: () => this.#older() }, "Show older ones");
    const id = heading.toLowerCase();
    this.node = el("section", { class: "panel", "aria-labelledby": id },
      el("h2", { id }, heading), this.nothing, this.list, this.more);
  }

  /** The newest of them, as far as they are known. */
  get items() {
    return [...this.#items.values()];
  }

  async load() {
    const page = await this.fetch(null);
    const joins = page.data.some((each) => this.#items.has(each.id));
    if (!joins) this.#items.clear();
    if (!joins) this.#cursor = page.next_cursor;
    this.#take(page.data);
  }

  /** Tell what is known once more, since what surrounds it has changed. */
  tell() {
    keyed(this.list, this.items, (item) => item.id, this.make);
    this.nothing.hidden = this.#items.size > 0;
    this.more.hidden = this.#cursor == null;
  }

  async #older() {
    this.more.disabled = true;
    try {
      const page = await this.fetch(this.#cursor);
      this.#cursor = page.next_cursor;
      this.#take(page.data);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // refused: it can be asked for again
    } finally {
      this.more.disabled = false;
    }
  }

  /** Ids sort by time. */
  #take(items) {
    for (const item of items) this.#items.set(item.id, item);
    this.#items = new Map([...this.#items].sort(([one], [other]) => (one < other ? 1 : -1)));
    this.tell();
  }
}
