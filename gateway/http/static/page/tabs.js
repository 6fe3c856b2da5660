// Tabs of this page in one browser: one that is signed in hands its key to a new one, and all are signed out together.
//
// sessionStorage is the tab's own, and a tab opened by Ctrl-click has none. localStorage would keep the key on the disk
// beyond the last tab. A BroadcastChannel carries it from memory to memory, within this origin and this browser profile.

const CHANNEL = `gateway ${new URL(".", document.baseURI).pathname}`;
const WAIT_MS = 500;

export class Tabs {
  #channel = new BroadcastChannel(CHANNEL);
  #waiting = null;

  /** `current()`: `{key}` of this tab, or null; `onSignOut(keyId)`: another tab has signed this key out. */
  constructor(current, onSignOut) {
    this.#channel.addEventListener("message", ({ data }) => {
      if (data.kind === "ask" && current() != null) this.#channel.postMessage({ kind: "key", to: data.from, key: current().key });
      else if (data.kind === "key" && data.to === this.#waiting?.from) this.#waiting.done(data.key);
      else if (data.kind === "signed out") onSignOut(data.keyId);
    });
  }

  /** The key of a tab that is signed in; null when none answers within half a second. */
  async ask() {
    const from = crypto.getRandomValues(new Uint32Array(4)).join("-");
    const key = await new Promise((done) => {
      this.#waiting = { from, done };
      setTimeout(() => done(null), WAIT_MS);
      this.#channel.postMessage({ kind: "ask", from });
    });
    this.#waiting = null;
    return key;
  }

  signedOut(keyId) {
    this.#channel.postMessage({ kind: "signed out", keyId });
  }
}
