// The event stream, taken up where it was lost. EventSource sends no Authorization, so it is read with fetch.

const FIRST_MS = 1_000;
const LONGEST_MS = 30_000;
const SETTLED_MS = 10_000;
const SILENCE_MS = 45_000; // the gateway says something every 15 s

/** A fault of who listens is told as such, and is no end of the stream. */
function safely(call) {
  try {
    call();
  } catch (error) {
    reportError(error);
  }
}

export class Stream {
  #api;
  #last;
  #pause = FIRST_MS;
  #least = 0;
  #stopped = false;
  #hurry = () => {};
  #cut = new AbortController();

  /**
   * `last`: the newest event known, after which it begins. `onEvent(event)` for each; `onState({name, until, message})`
   * with name `live`, `lost` (it is tried again at `until`) or `connecting`.
   */
  constructor(api, last, { onEvent, onState }) {
    this.#api = api;
    this.#last = last;
    Object.assign(this, { onEvent, onState });
    this.away = () => this.#cut.abort();
    this.back = () => this.now();
    addEventListener("offline", this.away);
    addEventListener("online", this.back);
  }

  /** Follow until `stop`, or until the key is no longer good. */
  async run() {
    while (!this.#stopped) {
      const began = Date.now();
      const message = await this.#connection();
      if (this.#stopped || message == null) break;
      if (Date.now() - began > SETTLED_MS) this.#pause = FIRST_MS;
      await this.#wait(message);
    }
  }

  stop() {
    this.#stopped = true;
    this.#cut.abort();
    this.#hurry();
    removeEventListener("offline", this.away);
    removeEventListener("online", this.back);
  }

  /** Don't wait any longer. */
  now() {
    this.#pause = FIRST_MS;
    this.#hurry();
  }

  /** One connection, to its end: why it ended, or null when there will be no other. */
  async #connection() {
    this.#cut = new AbortController();
    safely(() => this.onState({ name: "connecting" }));
    try {
      const headers = this.#last ? { "Last-Event-ID": this.#last } : {};
      const answer = await this.#api.open("events/stream", { headers, signal: this.#cut.signal });
      if (!answer.ok) return await this.#refused(answer);
      safely(() => this.onState({ name: "live" }));
      await this.#read(answer.body.getReader());
      return "";
    } catch {
      return ""; // lost; the gateway's refusals were returned above
    }
  }

  async #refused(answer) {
    const error = await this.#api.refusal(answer);
    this.#least = (error.retryAfter ?? 0) * 1_000;
    return error.status === 401 ? null : error.message;
  }

  async #read(reader) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const silence = setTimeout(() => this.#cut.abort(), SILENCE_MS);
      const { value, done } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return;
      const blocks = (rest + decoder.decode(value, { stream: true })).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      blocks.forEach((block) => this.#take(block));
    }
  }

  #take(block) {
    const line = block.split(/\r?\n/).find((each) => each.startsWith("data: "));
    if (line == null) return; // a comment: it is still there
    const event = JSON.parse(line.slice("data: ".length));
    this.#last = event.id;
    safely(() => this.onEvent(event));
  }

  /** Back off, each time twice as long, and by chance: a fleet of pages must not come back all at once. */
  async #wait(message) {
    const milliseconds = this.#least + this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(LONGEST_MS, this.#pause * 2);
    this.#least = 0;
    safely(() => this.onState({ name: "lost", until: Date.now() + milliseconds, message }));
    await new Promise((done) => {
      const timer = setTimeout(done, milliseconds);
      this.#hurry = () => (clearTimeout(timer), done());
    });
  }
}
