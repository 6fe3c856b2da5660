// A line that says what went wrong, in the view where it went wrong.

import { ApiError } from "./api.js";
import { el, say } from "./dom.js";
import { visible } from "./names.js";

/** By the sign-in, and by the word across the page. */
const SAID_ELSEWHERE = ["unauthorized", "unreachable"];

export function notice() {
  return el("p", { class: "error notice", role: "alert", hidden: true });
}

/** Tell of this error, or with null that all is well. What is no refusal of the gateway is a fault of the page: raised. */
export function tell(node, error) {
  if (error != null && !(error instanceof ApiError)) throw error;
  node.hidden = error == null || SAID_ELSEWHERE.includes(error.code);
  say(node, visible(error?.message ?? ""));
}
