// People who sign in through the provider: their session is a cookie, which no script can read.

import { Api, ApiError } from "./api.js";

const OPTIONS = new URL("auth/options", document.baseURI);
const BACK = /^#\/sign-in\/(\w+)$/;
const AGAIN = "Nobody was signed in. Begin again.";
const SAID = {
  state: "The sign-in took too long, or began in another browser. Begin again.",
  used: "This sign-in was completed before. Begin again.",
  denied: "The sign-in was declined at the provider.",
  no_role: "Your account has no role here. Ask who administers your accounts for one.",
  provider_unavailable: "The provider cannot be reached. Try again in a moment, or use an API key.",
  code: "The provider refused the sign-in. If that stays so, the gateway’s set-up there is wrong: its log says more.",
  token: "The provider’s answer is not valid. If that stays so, the gateway’s log says why.",
  issuer: "The answer came from another provider than the one asked. Begin again.",
  provider: "The provider reported an error. If that stays so, the gateway’s log says more.",
};

/** The provider that people can sign in at, `{name, url}`; null where there is none. */
export async function provider() {
  try {
    const answer = await fetch(OPTIONS, { cache: "no-store", credentials: "omit" });
    return answer.ok ? (await answer.json()).oidc : null;
  } catch {
    return null; // what follows says that the gateway cannot be reached
  }
}

/** The session that the browser has a cookie of; null where it has ended, or there is none. */
export async function currentSession() {
  try {
    return await new Api(null).get("session");
  } catch (error) {
    if (error instanceof ApiError) return null;
    throw error;
  }
}

/** Why the way back from the provider brought no session, in words, or null; it is then taken out of the address. */
export function refusal() {
  const [, code] = BACK.exec(location.hash) ?? [];
  if (code == null) return null;
  history.replaceState(null, "", "#/");
  return Object.hasOwn(SAID, code) ? SAID[code] : AGAIN;
}

/** Where the sign-in begins; it leads back to the view in the address. */
export const toProvider = ({ url }) => new URL(`${url}?view=${encodeURIComponent(location.hash.slice(1) || "/")}`, document.baseURI).href;

/** End the session at the gateway. `{end_session_url}`, where it can be ended at the provider; null: it goes on. */
export async function endSession(api) {
  try {
    return await api.remove("session");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return error.status === 401 ? {} : null;
  }
}
