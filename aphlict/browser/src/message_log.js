// @ts-check
/** The recent messages of a tab, in the order in which all tabs receive them, and the place to resume from. */

const MAX_ENTRIES = 512;
const MAX_RESUME_IDS = 14; // of the 16 uniqueIDs and positions that the server accepts

/**
 * @typedef {object} Entry
 * @property {string | undefined} after `last` of the place before
 * @property {import("./aphlict.js").Message} message
 */

/**
 * How far messages were received.
 *
 * @typedef {object} Place
 * @property {string | undefined} last the uniqueID of the last message, or where the leader began; undefined in a tab
 *   that has heard of neither
 * @property {string | undefined} position the newest of the server
 * @property {string[]} ids the uniqueIDs of the messages since then, oldest first; of many, the last ones
 */

export class MessageLog {
  /** @type {Place} */ place = { last: undefined, position: undefined, ids: [] };
  /** @type {Map<string, Entry>} by uniqueID, oldest first */ #entries = new Map();

  /** @param {string | undefined} id */
  has(id) {
    return this.#entries.has(/** @type {string} */ (id));
  }

  /** @param {Entry} entry */
  add(entry) {
    const id = entry.message.uniqueID;
    this.place = { ...this.place, last: id, ids: [...this.place.ids, id].slice(-MAX_RESUME_IDS) };
    this.#entries.set(id, entry);
    if (this.#entries.size > MAX_ENTRIES) {
      this.#entries.delete(/** @type {string} */ (this.#entries.keys().next().value));
    }
  }

  /** @param {string} position which covers all messages up to now, so that no uniqueID has to be named */
  setPosition(position) {
    this.place = { ...this.place, position, ids: [] };
  }

  /** Returns what the server needs to resume. */
  resumeAfter() {
    const { position, ids } = this.place;
    return position ? [...ids, position] : ids;
  }

  /**
   * Returns the entries after the place whose `last` is given, or undefined if they are unknown.
   *
   * @param {string | undefined} last
   * @returns {Entry[] | undefined}
   */
  since(last) {
    if (last == this.place.last) {
      return [];
    }
    const entries = [...this.#entries.values()];
    const next = entries.findIndex((entry) => entry.after == last);
    return next < 0 ? undefined : entries.slice(next);
  }
}
