// Which devices of the list are selected: some by their ids, or all that a filter finds.

export class Selection {
  #ids = new Set();
  #filter = null;
  #count = 0;
  #shown = [];

  /** `changed()`: other devices are selected, or another number of them. */
  constructor(changed) {
    this.changed = changed;
  }

  /** How many there are; of a filter, as far as the list has counted. */
  get size() {
    return this.#filter ? this.#count : this.#ids.size;
  }

  /** The filter that selects, in the parameters of the list; null when ids do. */
  get filter() {
    return this.#filter;
  }

  get ids() {
    return [...this.#ids];
  }

  has(id) {
    return this.#filter != null || this.#ids.has(id);
  }

  /** Whether all, some or none of the page is selected: `true`, `null`, `false`. */
  get ofPage() {
    const found = this.#shown.filter((id) => this.has(id)).length;
    if (!found) return false;
    return found === this.#shown.length || null;
  }

  /** The list shows these, and has counted so many that its filter finds. */
  show(ids, count) {
    this.#shown = ids;
    if (this.#filter) this.#count = count;
    this.changed();
  }

  /** Select one, or take it out. When the filter selected all, the rest of the page stays. */
  set(id, isSelected) {
    if (this.#filter) this.#byIds(this.#shown);
    if (isSelected) this.#ids.add(id);
    else this.#ids.delete(id);
    this.changed();
  }

  /** The same of the page. */
  setPage(isSelected) {
    if (this.#filter) this.#byIds([]);
    for (const id of this.#shown) {
      if (isSelected) this.#ids.add(id);
      else this.#ids.delete(id);
    }
    this.changed();
  }

  /** All that this filter finds, on every page. */
  setAll(filter, count) {
    this.#byIds([]);
    this.#filter = filter;
    this.#count = count;
    this.changed();
  }

  clear() {
    this.#byIds([]);
    this.changed();
  }

  #byIds(ids) {
    this.#ids = new Set(ids);
    this.#filter = null;
  }
}
