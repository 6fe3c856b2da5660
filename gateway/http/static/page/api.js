// Calls of the gateway's API. A key stands in a header, never in an address; the browser adds the cookie of a session.

const BASE = new URL("v1/", document.baseURI);
const SECONDS = 20;
const MOST_WAIT_SECONDS = 60;

/** What the API refuses, in its own words; `code` is `unreachable` when nobody answers. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfter = null) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** A header takes no other characters, and no key has any. */
export const looksLikeKey = (text) => /^[\x21-\x7e]+$/.test(text);

export class Api {
  #key;
  #csrf;
  #goOnAt = 0;
  #document = null;

  /**
   * With a `key`, or (null) with the cookie of a session, whose changes need the token `csrf`. `onEnd(error)`: that is not
   * good any more; `onWait(seconds)`: the gateway asks to slow down (0: over).
   */
  constructor(key, { csrf = null, onEnd = () => {}, onWait = () => {} } = {}) {
    this.#key = key;
    this.#csrf = csrf;
    this.onEnd = onEnd;
    this.onWait = onWait;
  }

  /** What lies at this path. One that comes too often is asked again when the gateway says, unless `signal` ends it. */
  async get(path, query = {}, signal = null) {
    for (;;) {
      await this.#turn(signal);
      try {
        return await this.#answer(await this.open(path, { query, signal: within(signal) }));
      } catch (error) {
        if (error.status !== 429) throw error;
        this.#slowDown(error.retryAfter);
      }
    }
  }

  /** Have something done, once: after a lost answer the same `once` may be sent again. */
  async post(path, body = {}, once = null) {
    return (await this.send("POST", path, body, once)).data;
  }

  /** Take away what lies at this path. */
  async remove(path) {
    return this.#answer(await this.open(path, { method: "DELETE", signal: within() }));
  }

  /** The same by any method, with the headers of the answer. */
  async send(method, path, body, once = null) {
    const headers = { "Content-Type": "application/json", ...(once && { "Idempotency-Key": once }) };
    const answer = await this.open(path, { method, headers, body: JSON.stringify(body), signal: within() });
    return { data: await this.#answer(answer), headers: answer.headers };
  }

  /** The document that describes the API, asked for when it is first needed. */
  document() {
    this.#document ??= this.open(new URL("openapi.json", document.baseURI), { signal: within() }).then((answer) => this.#answer(answer));
    this.#document.catch(() => (this.#document = null));
    return this.#document;
  }

  /** Send a request; the answer, whatever it says. */
  async open(path, { query = {}, headers = {}, ...options } = {}) {
    const url = new URL(path, BASE);
    for (const [name, value] of Object.entries(query)) for (const each of [value].flat()) if (each != null) url.searchParams.append(name, each);
    try {
      return await fetch(url, {
        ...options, cache: "no-store", credentials: this.#key == null ? "same-origin" : "omit",
        headers: { ...headers, ...this.#proof(options.method ?? "GET") },
      });
    } catch (error) {
      throw options.signal?.aborted && error.name === "AbortError" ? error : unreachable();
    }
  }

  /** The refusal that an answer is. */
  async refusal(answer) {
    const said = (await answer.json().catch(() => null))?.error;
    const retryAfter = Number(answer.headers.get("Retry-After")) || null;
    const error = new ApiError(answer.status, said?.code ?? "strange", said?.message ?? strange(answer), retryAfter);
    if (answer.status === 401 || error.code === "csrf_refused") this.onEnd(error); // another sign-in in this browser
    return error;
  }

  #proof(method) {
    if (this.#key != null) return { Authorization: `Bearer ${this.#key}` };
    return method === "GET" ? {} : { "X-CSRF-Token": this.#csrf };
  }

  async #answer(answer) {
    if (!answer.ok) throw await this.refusal(answer);
    try {
      return await answer.json();
    } catch {
      throw new ApiError(answer.status, "strange", strange(answer));
    }
  }

  async #turn(signal) {
    while (this.#goOnAt > Date.now()) await pause(this.#goOnAt - Date.now(), signal);
    if (this.#goOnAt) this.onWait((this.#goOnAt = 0));
  }

  #slowDown(seconds) {
    const wait = Math.min(seconds ?? 5, MOST_WAIT_SECONDS) * (1 + Math.random() / 5);
    this.#goOnAt = Math.max(this.#goOnAt, Date.now() + wait * 1_000);
    this.onWait(Math.ceil(wait));
  }
}

const within = (signal) => AbortSignal.any([AbortSignal.timeout(SECONDS * 1_000), ...(signal ? [signal] : [])]);
const strange = (answer) => `What answers here is no gateway (HTTP ${answer.status}). Check what stands between.`;
const unreachable = () => new ApiError(0, "unreachable",
  "The gateway cannot be reached. Check that it runs and that this machine has a way to it.");

/** Wait; raises when `signal` ends it. */
export function pause(milliseconds, signal = null) {
  return new Promise((done, failed) => {
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), failed(signal.reason)), { once: true });
  });
}

/** A value for `Idempotency-Key`. Not `randomUUID`, which browsers keep back where HTTPS is missing. */
export function onceKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
