// A certificate of reset: the gateway's own page of it in a frame without scripts, to be printed and handed over.

import { download } from "./download.js";
import { el, say } from "./dom.js";
import { notice, tell } from "./notice.js";
import { toDevice } from "./routes.js";

const PAGE = "text/html";
const SIGNED = "application/jose";

export class CertificateView {
  title = "Certificate of reset · Device gateway";
  #ended = new AbortController();
  #url = null;

  constructor({ api }, { device, command, certificate }) {
    Object.assign(this, { api, command });
    this.path = `devices/${device}/resets/${command}/certificate`;
    this.query = certificate ? { certificate } : {};
    this.frame = el("iframe", { class: "paper", title: "The certificate", sandbox: "allow-same-origin allow-modals", hidden: true });
    this.frame.addEventListener("load", () => this.#fit());
    const button = (words, run, tone = null) => el("button", { type: "button", class: tone, onclick: run }, words);
    this.actions = el("div", { class: "actions", hidden: true },
      button("Download as page", () => this.#save(PAGE, "html")), button("Download signed", () => this.#save(SIGNED, "jwt")),
      button("Print", () => this.frame.contentWindow.print(), "main"));
    this.wrong = notice();
    this.wait = el("p", { class: "quiet", role: "status" }, "Loading …");
    this.node = el("div", { class: "certificate" },
      el("p", { class: "back" }, el("a", { href: "#/resets" }, "← Resets"), " · ", el("a", { href: toDevice(device) }, "The device")),
      el("div", { class: "title" }, el("h1", { tabindex: "-1" }, "Certificate of reset"), this.actions), this.wrong, this.wait, this.frame);
    this.#load();
    this.resized = () => this.#fit();
    addEventListener("resize", this.resized);
  }

  look() {}

  happened({ data }) {
    if (data.command_id === this.command && this.frame.hidden) this.#load();
  }

  close() {
    this.#ended.abort();
    removeEventListener("resize", this.resized);
    if (this.#url) URL.revokeObjectURL(this.#url);
  }

  async #load() {
    try {
      const html = await this.#fetch(PAGE);
      this.#url = URL.createObjectURL(new Blob([html], { type: `${PAGE}; charset=utf-8` }));
      this.frame.src = this.#url;
      this.frame.hidden = this.actions.hidden = false;
      tell(this.wrong, null);
    } catch (error) {
      if (!this.#ended.signal.aborted) tell(this.wrong, error);
    }
    say(this.wait, "");
  }

  async #fetch(type) {
    const answer = await this.api.open(this.path, { query: this.query, headers: { Accept: type }, signal: this.#ended.signal });
    if (!answer.ok) throw await this.api.refusal(answer);
    return answer.text();
  }

  async #save(type, ending) {
    try {
      download(`certificate-${this.command}.${ending}`, type, await this.#fetch(type));
    } catch (error) {
      if (!this.#ended.signal.aborted) tell(this.wrong, error);
    }
  }

  /** As high as what is in it, so that one page scrolls, not two. */
  #fit() {
    const inside = this.frame.contentDocument?.documentElement;
    const border = this.frame.offsetHeight - this.frame.clientHeight;
    if (inside) this.frame.style.blockSize = `${inside.scrollHeight + border}px`;
  }
}
