// The first thing to see: the way to the provider, if there is one, and the form for an API key, which is tried first.

import { Api, ApiError, looksLikeKey } from "./api.js";
import { el, put } from "./dom.js";
import { toProvider } from "./person.js";

const READ = "devices:read";
const NO_READ = `This key lacks the scope ${READ}, without which nothing can be shown. Use one that has it.`;
const NO_KEY = "An API key begins with sk_ or rk_ and has no spaces. Copy it again, without quotes.";

/**
 * Show the form in `main`; `said` tells why one is asked again. `onKey(key, facts)` gets a key that is good. `oidc` is the
 * provider, or null.
 */
export function signIn(main, said, onKey, oidc = null) {
  const input = el("input", {
    id: "key", type: "password", required: true, spellcheck: "false", autocomplete: "off", autocapitalize: "off",
    placeholder: "sk_live_…", "aria-describedby": "keyHelp refused",
  });
  const refused = el("p", { id: "refused", class: "error", role: "alert" }, said);
  const button = el("button", { type: "submit", class: oidc == null && "main" }, oidc == null ? "Sign in" : "Sign in with the key");
  const form = el("form", { class: "panel signin", novalidate: true },
    el("h1", { tabindex: "-1" }, "Sign in"),
    refused,
    oidc && [
      el("a", { id: "provider", class: "button main", href: toProvider(oidc) }, `Sign in with ${oidc.name}`),
      el("h2", {}, "Or with an API key"),
    ],
    el("label", { for: "key" }, "API key"),
    input,
    el("p", { id: "keyHelp", class: "quiet" },
      "Kept until the last tab of this page is closed, never on the disk, and sent to this gateway alone. A key that may only read is enough to look around."),
    button,
    el("details", {},
      el("summary", {}, "Where to get one"),
      el("p", {}, "On the gateway’s machine, with its data directory if that is not the default:"),
      el("pre", {}, "gateway keys create --name me --scope devices:read"),
      el("p", {}, "Without ", el("code", {}, "--scope"), " it may also reset, unbind and cancel.")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    put(refused);
    try {
      await tried(input.value.trim(), onKey);
    } catch (error) {
      put(refused, wrong(error));
      button.disabled = false;
      input.focus();
    }
  });
  put(main, form);
  (form.querySelector("#provider") ?? input).focus();
}

async function tried(text, onKey) {
  if (!looksLikeKey(text)) throw new ApiError(0, "no_key", NO_KEY);
  const facts = await new Api(text).get("key");
  if (!facts.scopes.includes(READ)) throw new ApiError(403, "insufficient_scope", NO_READ);
  onKey(text, facts);
}

function wrong(error) {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 401) return "This key is not good: unknown, expired or revoked. Check it, or make another one.";
  return error.code === "insufficient_scope" ? NO_READ : error.message;
}
