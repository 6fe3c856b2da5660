// Puts the page together: who is signed in, which view is shown, and whether it is live.

import { Api, ApiError } from "./api.js";
import { AuditView } from "./audit.js";
import { CertificateView } from "./certificate.js";
import { DeviceView } from "./device.js";
import { el, put } from "./dom.js";
import { FleetView } from "./fleet.js";
import { keepTime } from "./format.js";
import { JobView } from "./job.js";
import { JobsView } from "./jobs.js";
import { Liveness } from "./liveness.js";
import { named } from "./names.js";
import { currentSession, endSession, provider, refusal } from "./person.js";
import { Readiness } from "./readiness.js";
import { ResetsView } from "./resets.js";
import { route } from "./routes.js";
import { key, setUpTheme } from "./session.js";
import { signIn } from "./signin.js";
import { Stream } from "./stream.js";
import { Tabs } from "./tabs.js";

const GONE = "The gateway does not take this key any more: it was revoked or has expired. Sign in with another one.";
const ENDED = "Your session has ended. Sign in again.";
const STILL_IN = "You are still signed in: the gateway could not end the session. Try again in a moment.";
const WRITE = "devices:write";
const LOOK_MS = 10_000; // heartbeats make no events
const READY_MS = 5_000;

const byId = (id) => document.getElementById(id);
const main = byId("main");
const OUT = "Signed out in another tab.";
const liveness = new Liveness(() => session?.stream?.now());
const tabs = new Tabs(() => (session == null || session.isPerson ? null : { key: key.get() }), (keyId) => session?.keyId === keyId && signOut(OUT));
let session = null;
let oidc = null; // the provider, where people can sign in at one

async function start() {
  const kept = key.get();
  oidc = await provider();
  if (kept != null) return startWith(kept);
  const said = refusal();
  const person = oidc && (await currentSession());
  if (person) return signedIn(null, person);
  ask(said);
  tabs.ask().then((handed) => handed != null && session == null && startWith(handed));
}

const ask = (said) => signIn(main, said, signedIn, oidc);

function startWith(kept) {
  new Api(kept, { onWait: (seconds) => liveness.slow(seconds) }).get("key").then((facts) => signedIn(kept, facts), (error) => {
    if (error instanceof ApiError && error.status === 401) key.forget();
    ask(error.status === 401 ? GONE : error.message);
  });
}

/** With a key that is good, or (null) in the session of a person. */
async function signedIn(text, facts) {
  if (text != null) key.keep(text);
  const onEnd = () => signOut(text == null ? ENDED : GONE);
  const api = new Api(text, { csrf: facts.csrf_token, onEnd, onWait: (seconds) => liveness.slow(seconds) });
  session = { api, keyId: facts.id, isPerson: text == null, mayWrite: facts.scopes.includes(WRITE), fleet: null, view: null, stream: null, looks: [] };
  session.readiness = new Readiness((url, options) => api.open(url, options), () => {
    liveness.broker(session.readiness.hasBroker);
    session.view?.look();
  });
  session.readiness.look();
  put(byId("project"), named(facts.project_name), facts.name == null ? "" : [" · ", named(facts.name)], session.mayWrite ? "" : " · read only");
  byId("signOut").hidden = byId("toEvents").hidden = byId("toResets").hidden = byId("toJobs").hidden = false;
  show();
  await follow(session);
}

/** From the newest event on: what happened between the first look and the stream is not missed. */
async function follow(current) {
  const newest = await current.api.get("events", { limit: 1 }).catch(() => ({ data: [] }));
  if (session !== current) return;
  current.stream = new Stream(current.api, newest.data[0]?.id, {
    onEvent: (event) => document.hidden || current.view?.happened(event), // when it is seen again, all is looked at
    onState: (state) => {
      liveness.show(state);
      if (state.name !== "live") return;
      current.view?.look(true);
      current.readiness.look();
    },
  });
  current.looks = [
    setInterval(() => document.hidden || current.view?.look(), LOOK_MS),
    setInterval(() => document.hidden || current.readiness.look(), READY_MS),
  ];
  await current.stream.run();
}

function signOut(said = null) {
  if (session == null) return;
  const { view, fleet, stream, looks, readiness } = session;
  session = null;
  stream?.stop();
  looks.forEach(clearInterval);
  readiness.close();
  liveness.broker(true);
  new Set([view, fleet]).forEach((each) => each?.close());
  key.forget();
  liveness.hide();
  put(byId("project"));
  byId("signOut").hidden = byId("toEvents").hidden = byId("toResets").hidden = byId("toJobs").hidden = true;
  document.querySelector("dialog[open]")?.close();
  document.title = "Device gateway";
  ask(said);
}

/** The view of the address. That of the fleet is kept while a device is looked at, so that the way back is short. */
function show() {
  if (session == null) return;
  const { device, command, job, isEvents, isResets, isJobs, query } = route();
  if (session.view !== session.fleet) session.view.close();
  if (device == null && !isEvents && !isResets && !isJobs) {
    session.fleetAt = location.hash; // with its filters and its page
    const again = session.fleet != null && session.view !== session.fleet;
    session.view = session.fleet ??= new FleetView(session);
    session.view.show(query);
    place(session.view, again ? session.fleet.scroll : null);
  } else {
    session.fleet?.leave();
    session.view = job != null ? new JobView(session, job, query) : isJobs ? new JobsView(session, query)
      : isResets ? new ResetsView(session, query) : isEvents ? new AuditView(session, query)
      : command != null ? new CertificateView(session, { device, command, ...query }) : new DeviceView(session, device);
    place(session.view, 0);
  }
}

function place(view, scroll) {
  if (main.firstElementChild === view.node) return;
  put(main, view.node);
  document.title = view.title;
  view.node.querySelector("h1")?.focus({ preventScroll: true });
  if (scroll != null) scrollTo(0, scroll);
}

byId("signOut").addEventListener("click", async () => {
  const { keyId, isPerson, api } = session;
  const ended = isPerson ? await endSession(api) : {};
  if (ended == null) return main.prepend(el("p", { class: "error notice", role: "alert" }, STILL_IN));
  tabs.signedOut(keyId);
  signOut();
  if (ended.end_session_url) location.assign(ended.end_session_url);
});
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  session?.view?.look(true);
  session?.readiness.look();
});
setUpTheme(byId("theme"));
keepTime();
start();
