// The order of the list of devices: the API's names, the column that shows each, and the words of the choice.

/** Each order of the API with the direction that it has unless another one is asked for. */
const DIRECTIONS = { created_at: "desc", updated_at: "desc", serial_number: "asc", name: "asc" };
const USUAL = "created_at";

/** The choices, as `sort.order`; the usual one is the empty choice. */
export const ORDERS = {
  "created_at.asc": "Oldest first", "updated_at.desc": "Changed last", "updated_at.asc": "Unchanged longest",
  "serial_number.asc": "Serial number, up", "serial_number.desc": "Serial number, down", "name.asc": "Name, A to Z", "name.desc": "Name, Z to A",
};

/** `{sort, order}` of an address, both given. */
export function orderOf({ sort, order }) {
  const by = sort || USUAL;
  return { sort: by, order: order || DIRECTIONS[by] };
}

/** The value of the choice for an address; "" for the usual order. */
export function chosenOrder(query) {
  const { sort, order } = orderOf(query);
  return sort === USUAL && order === DIRECTIONS[USUAL] ? "" : `${sort}.${order}`;
}

/** What a choice says in the address. */
export function orderAsked(value) {
  const [sort, order] = value.split(".");
  return value ? { sort, order } : { sort: null, order: null };
}

/** What is asked for when the head of this column is pressed: its own direction first, then the other one. */
export function turned(query, column) {
  const { sort, order } = orderOf(query);
  const next = sort !== column ? DIRECTIONS[column] : order === "asc" ? "desc" : "asc";
  return column === USUAL && next === DIRECTIONS[USUAL] ? { sort: null, order: null } : { sort: column, order: next };
}
