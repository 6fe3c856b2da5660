// Doing something again and again, but never twice at a time and never too often.

/**
 * `run(signal)`, at once when it is asked for after a quiet time, else as soon as `everyMs` are over. However often it is
 * asked for in between, it is done once more. `stop` ends what runs.
 */
export class Paced {
  #timer = null;
  #running = false;
  #again = false;
  #began = -Infinity;
  #ended = new AbortController();

  constructor(run, everyMs) {
    this.run = run;
    this.everyMs = everyMs;
  }

  ask() {
    if (this.#ended.signal.aborted) return;
    if (this.#running) this.#again = true;
    else this.#timer ??= setTimeout(() => this.#go(), Math.max(0, this.#began + this.everyMs - performance.now()));
  }

  stop() {
    clearTimeout(this.#timer);
    this.#ended.abort();
  }

  async #go() {
    this.#timer = null;
    this.#running = true;
    this.#began = performance.now();
    try {
      await this.run(this.#ended.signal);
    } catch (error) {
      if (!this.#ended.signal.aborted) throw error;
    } finally {
      this.#running = false;
      if (this.#again) {
        this.#again = false;
        this.ask();
      }
    }
  }
}
