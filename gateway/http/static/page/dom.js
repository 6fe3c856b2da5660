// Making and changing elements. Text stays text: nothing here, or anywhere on the page, parses markup.

const SVG = "http://www.w3.org/2000/svg";
const updates = new WeakMap();

/** An element with these attributes (`on…`: listeners; true: without a value; null and false: left out) and children. */
export function el(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for a drawing. */
export function svg(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else set(node, name, value);
  }
  node.append(...present(children));
  return node;
}

const present = (children) => children.flat(3).filter((child) => child != null && child !== false);

/** Set an attribute, or take it away. */
export function set(node, name, value) {
  if (value == null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

/** Put these children in the place of those that are there. */
export function put(node, ...children) {
  node.replaceChildren(...present(children));
  return node;
}

/** Say this, unless it is said already: a selection stays, and a screen reader reads only what is new. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
  return node;
}

/** Say this in text and elements, unless the same is said already. */
export function sayAll(node, ...children) {
  const said = el("span", {}, children);
  if (node.textContent !== said.textContent) node.replaceChildren(...said.childNodes);
  return node;
}

/**
 * Have a child for each item, in their order. `make(item)` gives `[node, update]`; a node is kept and updated as long as
 * its key is among the items, so that focus and selection survive whatever changes around it.
 */
export function keyed(parent, items, key, make) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  const nodes = items.map((item) => {
    const node = known.get(key(item)) ?? made(item, key, make);
    updates.get(node)(item);
    return node;
  });
  const wanted = new Set(nodes);
  for (const node of known.values()) if (!wanted.has(node)) node.remove();
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
}

function made(item, key, make) {
  const [node, update] = make(item);
  node.dataset.key = key(item);
  updates.set(node, update);
  return node;
}
