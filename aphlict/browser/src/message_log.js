// @ts-check
/** The recent messages of a tab, in the order in which all tabs receive them. */

const MAX_ENTRIES = 512;
// How many uniqueIDs a request to resume names: nodes may differ in order. The server accepts 16, with two positions.
const MAX_RESUME_IDS = 14;

/**
 * A message, or without one a position: the server's history has advanced by messages that no tab wants.
 *
 * @typedef {object} Entry
 * @property {string | undefined} after the ID of the entry before
 * @property {string} id a uniqueID, or a position
 * @property {import("./aphlict.js").Message} [message]
 */

export class MessageLog {
  /** @type {string | undefined} the ID of the last entry, which may not be here */ last;
  /** @type {Map<string, Entry>} oldest first */ #entries = new Map();

  /** @param {string} id */
  has(id) {
    return this.#entries.has(id);
  }

  /** @param {Entry} entry */
  add(entry) {
    this.last = entry.id;
    this.#entries.set(entry.id, entry);
    if (this.#entries.size > MAX_ENTRIES) {
      this.#entries.delete(/** @type {string} */ (this.#entries.keys().next().value));
    }
  }

  /** Returns what a server needs to resume: the last uniqueIDs, oldest first, then the last positions. */
  resumeIds() {
    const entries = [...this.#entries.values()];
    const positions = entries.filter((entry) => !entry.message).slice(-1);
    const messages = entries.filter((entry) => entry.message).slice(-MAX_RESUME_IDS);
    const ids = [...messages, ...positions].map((entry) => entry.id);
    return this.last === undefined || this.has(this.last) ? ids : [...ids, this.last];
  }

  /**
   * Returns the entries after `id`, or undefined if they are unknown.
   *
   * @param {string} id
   * @returns {Entry[] | undefined}
   */
  since(id) {
    if (id == this.last) {
      return [];
    }
    const entries = [...this.#entries.values()];
    const next = entries.findIndex((entry) => entry.after == id);
    return next < 0 ? undefined : entries.slice(next);
  }
}
