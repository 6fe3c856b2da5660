// A list of the API as a CSV file, whole and with its filters.

import { ApiError } from "./api.js";
import { el, put } from "./dom.js";
import { download } from "./download.js";
import { tell } from "./notice.js";

const WORDS = "Export as CSV";
const BOM = "\ufeff"; // a spreadsheet then reads it as UTF-8

/** A button that saves what `path` answers to the filters of that time. `wrong`: the notice that says what went wrong. */
export function exportButton(api, path, filters, { file, wrong, signal }) {
  const button = el("button", { type: "button", onclick: save }, WORDS);
  async function save() {
    button.disabled = true;
    put(button, "One moment …");
    try {
      download(file, "text/csv", BOM, await fetched(api, path, filters(), signal));
      tell(wrong, null);
    } catch (error) {
      if (!signal.aborted) tell(wrong, error);
    }
    put(button, WORDS);
    button.disabled = false;
  }
  return button;
}

/** The file. It stays with the browser, which keeps a long one on its disk. */
async function fetched(api, path, query, signal) {
  const answer = await api.open(path, { query, headers: { Accept: "text/csv" }, signal });
  if (!answer.ok) throw await api.refusal(answer);
  return answer.blob().catch(() => {
    throw new ApiError(0, "broken", "The file broke off. Export it again.");
  });
}
