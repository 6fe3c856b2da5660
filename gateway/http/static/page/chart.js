// One curve over time, drawn as SVG: a grid, a line with gaps where nothing was heard, and a readout.

import { el, put, say, set, svg } from "./dom.js";
import { clock, full } from "./format.js";

const HEIGHT = 132;
const EDGE = { top: 8, right: 8, bottom: 20, left: 62 };
const LABEL_WIDTH = 76;
const MINUTE = 60_000;
const DAY = 1_440 * MINUTE;
const STEPS = [5, 10, 15, 30, 60, 180, 360, 720, 1_440, 2_880, 5_760, 10_080].map((minutes) => minutes * MINUTE);
const SHORT = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export class Chart {
  #width = 0;
  #points = [];
  #frame = null;

  /** `shown(value)` writes a value; `onHover(time)` is told where the pointer is, null when it is gone. */
  constructor(title, shown, onHover) {
    Object.assign(this, { title, shown });
    this.readout = el("span", { class: "readout" });
    this.drawing = svg("svg", { role: "img", "aria-label": title, height: HEIGHT, width: "100%" });
    this.node = el("figure", { class: "chart" },
      el("figcaption", {}, el("span", {}, title), this.readout), this.drawing);
    this.drawing.addEventListener("pointermove", (event) => this.#frame && onHover(this.#time(event.offsetX)));
    this.drawing.addEventListener("pointerleave", () => onHover(null));
    new ResizeObserver(([entry]) => this.#resize(Math.floor(entry.contentRect.width))).observe(this.drawing);
  }

  /** `points`: `{at, value}`, the oldest first; `frame`: `from`, `to` and `gap` in milliseconds, `low`, `high` and perhaps `mark`. */
  tell(points, frame) {
    this.#points = points;
    this.#frame = frame;
    this.#draw();
  }

  /** Show the value of that time; null: the newest. */
  hover(time) {
    const point = time == null ? this.#points.at(-1) : nearest(this.#points, time);
    say(this.readout, point ? `${this.shown(point.value)}${time == null ? "" : ` at ${clock(new Date(point.at))}`}` : "no data");
    const cursor = this.drawing.querySelector(".cursor");
    if (!cursor) return;
    cursor.toggleAttribute("hidden", time == null || !point);
    if (point) set(cursor, "transform", `translate(${this.#x(point.at)} 0)`);
    if (point) set(cursor.querySelector("circle"), "cy", this.#y(point.value));
  }

  #resize(width) {
    if (width === this.#width) return;
    this.#width = width;
    this.#draw();
  }

  #draw() {
    if (!this.#frame || !this.#width) return;
    const { left, right, top, bottom } = EDGE;
    const base = HEIGHT - bottom;
    const line = path(this.#points, this.#frame.gap, (at) => this.#x(at), (value) => this.#y(value));
    put(this.drawing,
      this.#levels().map((value) => this.#level(value, left, this.#width - right)),
      ticks(this.#frame, (this.#width - left - right) / LABEL_WIDTH).map((at) => svg("text", {
        x: this.#x(at), y: HEIGHT - 4, "text-anchor": "middle", class: "label" }, this.#moment(at))),
      this.#frame.mark != null && svg("path", { class: "mark", d: `M${left} ${this.#y(this.#frame.mark)}H${this.#width - right}` }),
      svg("path", { class: "line", d: line }),
      svg("g", { class: "cursor", hidden: true }, svg("path", { d: `M0 ${top}V${base}` }), svg("circle", { r: 3.5 })));
    set(this.drawing, "aria-label", this.#summary());
    this.hover(null);
  }

  #levels() {
    const { low, high } = this.#frame;
    return [low, (low + high) / 2, high];
  }

  #level(value, from, to) {
    const y = Math.round(this.#y(value)) + 0.5;
    return [
      svg("path", { class: "grid", d: `M${from} ${y}H${to}` }),
      svg("text", { x: from - 6, y: y + 4, "text-anchor": "end", class: "label" }, this.shown(value)),
    ];
  }

  #moment(at) {
    const long = this.#frame.to - this.#frame.from > 2 * DAY;
    return long ? SHORT.format(at) : clock(new Date(at)).slice(0, 5);
  }

  #summary() {
    if (!this.#points.length) return `${this.title}: nothing was heard in this time.`;
    const values = this.#points.map((point) => point.value);
    const [first, last] = [this.#points[0], this.#points.at(-1)];
    const range = `lowest ${this.shown(Math.min(...values))}, highest ${this.shown(Math.max(...values))}`;
    return `${this.title} from ${full(first.at)} to ${full(last.at)}: ${range}, at the end ${this.shown(last.value)}.`;
  }

  #x(at) {
    const { from, to } = this.#frame;
    return EDGE.left + ((at - from) / (to - from)) * (this.#width - EDGE.left - EDGE.right);
  }

  #y(value) {
    const { low, high } = this.#frame;
    return EDGE.top + (1 - (value - low) / (high - low || 1)) * (HEIGHT - EDGE.top - EDGE.bottom);
  }

  #time(x) {
    const { from, to } = this.#frame;
    return from + ((x - EDGE.left) / (this.#width - EDGE.left - EDGE.right)) * (to - from);
  }
}

function nearest(points, time) {
  return points.reduce((best, point) => (best && Math.abs(best.at - time) <= Math.abs(point.at - time) ? best : point), null);
}

/** A line through the points, broken where more than `gap` lies between two; a point alone is a dot. */
function path(points, gap, x, y) {
  return points.map(({ at, value }, index) => {
    const apart = index === 0 || at - points[index - 1].at > gap;
    const place = `${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    return apart ? `M${place}h0` : `L${place}`;
  }).join("");
}

/** Round moments of the local clock, at most `most` of them. */
function ticks({ from, to }, most) {
  const step = STEPS.find((each) => (to - from) / each <= Math.max(2, most)) ?? STEPS.at(-1);
  const shift = new Date(from).getTimezoneOffset() * MINUTE;
  const first = Math.ceil((from - shift) / step) * step + shift;
  const found = [];
  for (let at = first; at <= to; at += step) found.push(at);
  return found.filter((at) => at - from > (to - from) * 0.02 && to - at > (to - from) * 0.02);
}
