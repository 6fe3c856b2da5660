// Follows `/ready`: which gateway answers, and whether the broker is served, without which presence is not known.

import { put, say } from "./dom.js";
import { named, visible } from "./names.js";
import { Paced } from "./paced.js";

const URL_READY = new URL("ready", document.baseURI);
const LEAST_MS = 2_000;
const byId = (id) => document.getElementById(id);

export class Readiness {
  #facts = null;
  #looked = new Paced((signal) => this.#look(signal), LEAST_MS);

  /** `ask(url, options)`: a fetch with the key; `onChange()`: presence is known again, or not any more. */
  constructor(ask, onChange) {
    this.ask = ask;
    this.onChange = onChange;
  }

  /** Whether a device that counts as online is there; true until the gateway says otherwise. */
  get hasBroker() {
    return this.#facts == null || this.#facts.broker.connected || isServedByAnother(this.#facts);
  }

  look() {
    this.#looked.ask();
  }

  close() {
    this.#looked.stop();
    this.#facts = null;
    this.#show();
  }

  /** 503 has the same facts. An answer that is none, or no answer, is told by the stream. */
  async #look(signal) {
    const answer = await this.ask(URL_READY, { signal }).catch(() => null);
    const facts = await answer?.json().catch(() => null);
    if (signal.aborted || typeof facts?.ready !== "boolean") return;
    const before = this.hasBroker;
    this.#facts = facts;
    this.#show();
    if (before !== this.hasBroker) this.onChange();
  }

  #show() {
    this.#showGateway();
    const wrong = this.#facts != null && words(this.#facts);
    const text = JSON.stringify(wrong);
    if (byId("unready").dataset.text === text) return; // a screen reader reads it once
    byId("unready").dataset.text = text;
    byId("unready").hidden = !wrong;
    byId("live").dataset.ready = wrong ? "no" : "yes";
    if (wrong) put(byId("unready"), wrong.map(([strong, rest, error]) => [
      sentence(strong, rest), error ? sentence(null, "It says: ", named(error)) : null,
    ]));
  }

  /** Where several gateways serve the registry: which one answers. */
  #showGateway() {
    const { id, alone = true } = this.#facts?.gateway ?? {};
    byId("answers").hidden = alone;
    say(byId("answers"), alone ? "" : visible(id));
  }
}

/** Another gateway holds the lease of this one's broker: it is connected there, and this one stands by. */
function isServedByAnother({ leases = [] }) {
  return leases.some((each) => each.name.startsWith("broker:") && !each.held && each.owner != null);
}

function sentence(strong, ...rest) {
  const node = document.createElement("p");
  if (strong) node.append(Object.assign(document.createElement("strong"), { textContent: strong }), " ");
  node.append(...rest);
  return node;
}

/** What is wrong, each as `[what, what that means, the gateway's own words]`; null: nothing is. */
function words(facts) {
  if (facts.registry?.error) return ofPart(facts);
  const unowned = facts.leases?.filter((each) => each.error).map(ofLease) ?? [];
  const own = facts.ready || unowned.length ? unowned : ofPart(facts);
  const wrong = [...own, ...othersAway(facts).map(ofBroker)];
  return wrong.length ? wrong : null;
}

/** The brokers that are not served, but for the own one where the state of this gateway already says that. */
function othersAway({ leases = [], brokers = [] }) {
  const told = leases.filter((each) => each.held || each.error).map((each) => each.name);
  return brokers.filter((each) => !each.connected && !told.includes(`broker:${each.id}`));
}

function ofBroker({ id, owner, followed }) {
  const what = owner == null ? `No gateway serves the broker “${visible(id)}”.` : `The broker “${visible(id)}” is away.`;
  const unknown = "Which of its devices are online is not known.";
  if (!followed) return [what, `${unknown} It has been away for more than ten minutes. If it is gone, “gateway registry forget-broker” removes it.`, null];
  const back = owner == null ? "a gateway serves the broker" : "the broker is back";
  return [what, `${unknown} What is asked for here, revocations included, is kept, and reaches the broker when ${back}.`, null];
}

function ofLease({ name, error }) {
  if (name === "fleet") return ["No gateway does the work of the fleet.", "Jobs, webhooks and expiry wait.", error];
  return ["No gateway serves the broker.", "Which devices are online is not known. What is asked for here is kept, and reaches devices when a gateway serves the broker.", error];
}

function ofPart({ broker, registry, access, certificates = [] }) {
  if (registry?.error) return [["The registry cannot be written.", "Nothing can be changed now.", registry.error]];
  if (!broker.connected) {
    return [["The gateway is not connected to its broker.", "Which devices are online is not known. What is asked for here is kept, and reaches devices when the broker is back.", broker.error]];
  }
  if (!broker.reconciled) return [["The broker is back.", "What it holds is being compared with the registry.", broker.error]];
  if (access?.error) return [["The broker does not know who may connect.", "New tokens and revocations wait.", access.error]];
  const expired = certificates.find((each) => each.error);
  if (expired) return [["A certificate of the gateway is not valid.", "Devices or people may be refused.", expired.error]];
  return [["The gateway is not ready.", "Its log and “gateway doctor” say why.", null]];
}
