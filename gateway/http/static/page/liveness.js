// Says whether what is seen is live: a word in the header, and across the page when it is not.

import { put, say } from "./dom.js";
import { clock } from "./format.js";

const AGAIN_MS = 5_000;
const byId = (id) => document.getElementById(id);

export class Liveness {
  #name = null;
  #timer = null;
  #lastLive = null;
  #text = "";
  #brokerIsAway = false;

  constructor(tryNow) {
    byId("tryNow").addEventListener("click", tryNow);
  }

  /** `state` as the stream tells it. While it connects again, what was said before stands. */
  show(state) {
    byId("live").hidden = false;
    if (state.name === "live") this.#live();
    else if (state.name === "lost") this.#lost(state);
    else if (this.#name == null) this.#word("connecting", "Connecting");
    else if (this.#name === "lost") this.#wait("Trying now …");
  }

  /** Whether the gateway has its broker: without it nothing that is shown of presence is live. */
  broker(isThere) {
    this.#brokerIsAway = !isThere;
    this.#say();
  }

  #say() {
    say(byId("liveWord"), this.#name === "live" && this.#brokerIsAway ? "Broker away" : this.#text);
  }

  /** The gateway asks to slow down for so many seconds; 0: that is over. */
  slow(seconds) {
    byId("slow").hidden = !seconds;
    put(byId("slow"), seconds && `This key has made as many requests as it may in a minute. It goes on by itself in ${seconds} s.`);
  }

  hide() {
    clearInterval(this.#timer);
    this.#name = this.#lastLive = null;
    for (const id of ["live", "lost", "slow"]) byId(id).hidden = true;
  }

  #live() {
    const again = this.#name === "lost";
    this.#stop();
    byId("lost").hidden = true;
    this.#word("live", again ? "Live again" : "Live");
    if (again) this.#timer = setTimeout(() => this.#word("live", "Live"), AGAIN_MS);
  }

  #lost({ until, message }) {
    if (this.#name === "live") this.#lastLive = new Date();
    this.#stop();
    this.#word("lost", "Not live");
    byId("lost").hidden = false;
    const old = this.#lastLive ? `What is shown may be as old as ${clock(this.#lastLive)}.` : "What is shown may be old.";
    say(byId("lostWhy"), `${message ? `${message} ` : ""}${old} It is taken up again by itself.`);
    const tell = () => this.#wait(`Next try in ${Math.max(1, Math.ceil((until - Date.now()) / 1_000))} s`);
    tell();
    this.#timer = setInterval(tell, 1_000);
  }

  #wait(text) {
    say(byId("lostWhen"), text);
  }

  #word(name, text) {
    this.#name = name;
    byId("live").dataset.state = name;
    this.#text = text;
    this.#say();
  }

  #stop() {
    clearInterval(this.#timer);
    clearTimeout(this.#timer);
  }
}
