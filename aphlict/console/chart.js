// Charts of the last five minutes, as SVG. Texts are beside it, as HTML.

import { make, setText } from "./dom.js";
import { clock } from "./format.js";

const SPAN = 300; // seconds, and the width in units of the drawing
const HEIGHT = 80;
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 */
const draw = (tag, attributes) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  return element;
};

/**
 * A round number that is not below a value, in units of 1, `base`, `base` squared, …
 * @param {number} value
 * @param {number} base
 */
const roundUp = (value, base) => {
  const unit = base ** Math.floor(Math.log(value) / Math.log(base));
  const power = 10 ** Math.floor(Math.log10(value / unit)) * unit;
  return ([1, 1.5, 2, 3, 5, 8].find((factor) => factor * power >= value * 0.999999) ?? 10) * power;
};

/** A line for each series of values, which share an axis. */
export class Chart {
  /**
   * @param {HTMLElement} place
   * @param {string} title
   * @param {string[]} names of the series, if there are several
   * @param {(value: number) => string} format a value as text
   * @param {number} base of its units: 1000 or 1024
   */
  constructor(place, title, names, format, base) {
    this._title = title;
    this._names = names;
    this._format = format;
    this._base = base;
    /** @type {{values: (number | null)[][], times: number[]}} */
    this._shown = { values: [], times: [] };
    this._now = make("strong");
    this._top = make("span", { class: "top" });
    this._range = make("figcaption", { class: "quiet" });
    this._paths = names.map((_, index) => draw("path", { class: `line line-${index}`, d: "" }));
    this._area = draw("path", { class: "area", d: "" });
    this._cursor = draw("path", { class: "cursor", d: "" });
    const half = draw("path", { class: "grid", d: `M0 ${HEIGHT / 2}H${SPAN}M0 0H${SPAN}M0 ${HEIGHT}H${SPAN}` });
    this._svg = draw("svg", { viewBox: `0 0 ${SPAN} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this._svg.append(half, ...(names.length === 1 ? [this._area] : []), ...this._paths, this._cursor);
    this._svg.addEventListener("pointermove", (event) => this._point(/** @type {PointerEvent} */ (event)));
    this._svg.addEventListener("pointerleave", () => this._describe());
    const keys = names.map((name, index) => make("span", { class: `key key-${index}` }, name));
    place.append(
      make("h3", {}, title, this._now),
      ...(names.length > 1 ? [make("p", { class: "keys" }, ...keys)] : []),
      make("div", { class: "plot" }, this._top, this._svg),
      make("p", { class: "axis" }, make("span", {}, "5 min ago"), make("span", {}, "now")),
      this._range,
    );
  }

  /**
   * @param {(number | null)[][]} values of each series, the oldest first
   * @param {number} last the time of the last ones
   * @param {number} interval between two
   */
  update(values, last, interval) {
    const length = values[0]?.length ?? 0;
    const times = Array.from({ length }, (_, index) => last - (length - 1 - index) * interval);
    this._shown = { values, times };
    const top = roundUp(Math.max(...values.flat().map((value) => value ?? 0), 0) || 1, this._base);
    const x = (/** @type {number} */ index) => SPAN - (last - (times[index] ?? last));
    const y = (/** @type {number} */ value) => HEIGHT - (value / top) * HEIGHT;
    values.forEach((series, line) => {
      const points = series.map((value, index) => {
        const isFirst = index === 0 || series[index - 1] === null;
        return value === null ? "" : `${isFirst ? "M" : "L"}${x(index)} ${y(value)}${isFirst ? "h0" : ""}`;
      });
      this._paths[line]?.setAttribute("d", points.join(""));
      this._area.setAttribute("d", length ? `M${x(0)} ${HEIGHT}${points.join("").replace("M", "L")}V${HEIGHT}Z` : "");
    });
    setText(this._top, values.flat().some((value) => value !== null) ? this._format(top) : "");
    this._describe();
  }

  /** Show the latest values, the lowest and the highest ones. */
  _describe() {
    this._cursor.setAttribute("d", "");
    const sentences = this._shown.values.map((series, index) => {
      const known = series.filter((value) => value !== null);
      const name = this._names.length > 1 ? `${this._names[index]}: ` : "";
      const range = `lowest ${this._format(Math.min(...known))}, highest ${this._format(Math.max(...known))}`;
      return name + (known.length ? range : "none");
    });
    const latest = this._shown.values.map((series) => series.at(-1) ?? null);
    setText(this._now, latest.map((value) => (value === null ? "–" : this._format(value))).join(" / "));
    setText(this._range, sentences.join("; "));
    this._svg.setAttribute(
      "aria-label",
      `${this._title}, last 5 minutes. Now ${this._now.textContent}. ${sentences.join("; ")}`,
    );
  }

  /** @param {PointerEvent} event */
  _point(event) {
    const box = this._svg.getBoundingClientRect();
    const { times, values } = this._shown;
    const last = times.at(-1) ?? 0;
    const at = last - SPAN + ((event.clientX - box.left) / box.width) * SPAN;
    const distances = times.map((time) => Math.abs(time - at));
    const index = distances.indexOf(Math.min(...distances));
    if (index >= 0) {
      const shown = values.map((series) => series[index] ?? null);
      const texts = shown.map((value) => (value === null ? "none" : this._format(value)));
      this._cursor.setAttribute("d", `M${SPAN - (last - (times[index] ?? last))} 0V${HEIGHT}`);
      setText(this._range, `${clock(times[index] ?? last)}: ${texts.join(" / ")}`);
    }
  }
}
