// @ts-check
/** What a tab has had of the one stream of messages: where it stands, and the recent past. */

const KEPT = 512;
const TOLD = 14; // how many uniqueIDs a server is told: nodes may differ in order. With two positions it takes 16

/**
 * One step of the stream. Without a message it is a mark: the server's history went on with what no tab wants.
 *
 * @typedef {object} Entry
 * @property {string | undefined} after the step before
 * @property {string} id
 * @property {import("./options.js").Message} [message]
 */

export class Stream {
  /** @type {string | undefined} */ last;
  /** @type {Map<string, Entry>} in the order of the stream */ #kept = new Map();

  /** @param {string} id */
  has(id) {
    return this.#kept.has(id);
  }

  /** @param {Entry} entry */
  add(entry) {
    this.last = entry.id;
    this.#kept.set(entry.id, entry);
    if (this.#kept.size > KEPT) {
      this.#kept.delete(/** @type {string} */ (this.#kept.keys().next().value));
    }
  }

  /** What a server is asked to go on from: the last few uniqueIDs, oldest first, and where it last said it was. */
  recent() {
    const entries = [...this.#kept.values()];
    const marks = entries.filter((entry) => !entry.message).slice(-1);
    const messages = entries.filter((entry) => entry.message).slice(-TOLD);
    const known = [...messages, ...marks].map((entry) => entry.id);
    return this.last === undefined || this.has(this.last) ? known : [...known, this.last];
  }

  /**
   * What came after a step, or undefined where that is not known.
   *
   * @param {string} id
   * @returns {Entry[] | undefined}
   */
  since(id) {
    if (id == this.last) {
      return [];
    }
    const entries = [...this.#kept.values()];
    const next = entries.findIndex((entry) => entry.after == id);
    return next < 0 ? undefined : entries.slice(next);
  }
}
