// A bar of the outcomes of a job's targets. What it shows stands beside it in figures, too.

import { el } from "./dom.js";

const SHOWN = ["executed", "failed", "delivered", "queued", "cancelled", "skipped"];

export function progressBar() {
  const parts = SHOWN.map((name) => el("i", { "data-outcome": name }));
  const node = el("span", { class: "outcomes", "aria-hidden": "true" }, parts);
  const tell = (counts) => parts.forEach((part, index) => {
    part.style.inlineSize = `${(100 * counts[SHOWN[index]]) / (counts.total || 1)}%`;
  });
  return { node, tell };
}
