// @ts-check
/** The state of the connection and of the channels, as one tab sees them. */

/** @typedef {import("./aphlict.js").ErrorDetails} ErrorDetails */
/** @typedef {import("./aphlict.js").State} State */

/**
 * @typedef {object} PageEvents
 * @property {(message: import("./aphlict.js").Message) => void} message
 * @property {() => void} gap
 * @property {(error: ErrorDetails) => void} error
 * @property {() => void} changed the state of the connection or of a channel
 */

export class TabState {
  /** @type {State} */ state = "connecting";
  /** @type {string[]} */ channels = [];
  /** @type {Set<string>} */ #subscribed = new Set();
  /** @type {import("./transport.js").Refused} */ #refused = new Map();
  /** @type {ErrorDetails | null} of the connection */ #error = null;
  #mustReportGap = false; // once all channels are subscribed or refused
  #gapTimer = 0;
  #gapJitter;
  #page;

  /**
   * @param {number} gapJitter ms
   * @param {PageEvents} page
   */
  constructor(gapJitter, page) {
    this.#gapJitter = gapJitter;
    this.#page = page;
  }

  get isConnected() {
    return this.state == "open" || this.state == "fallback";
  }

  /** @param {string[]} channels */
  setChannels(channels) {
    this.channels = channels;
    this.#subscribed = new Set(channels.filter((name) => this.#subscribed.has(name)));
    this.#refused = this.#filter(this.#refused);
  }

  /** @param {string[]} channels */
  isSubscribed(channels) {
    return channels.every((name) => this.isConnected && this.#subscribed.has(name));
  }

  /**
   * The error because of which the channels are not subscribed, if there is one; of several, the first.
   *
   * @param {string[]} channels
   * @returns {ErrorDetails | null}
   */
  errorOf(channels) {
    if (this.state == "unauthorized") {
      return this.#error;
    }
    const refused = this.isConnected && channels.map((name) => this.#refused.get(name)).find(Boolean);
    return refused ? { ...refused, channels: channels.filter((name) => refused.channels.includes(name)) } : null;
  }

  /** @param {import("./tab_messages.js").ConnectionState} connection */
  update({ state, subscribed, refused, error }) {
    const errors = error && error.code != this.#error?.code ? [error] : [];
    this.state = state;
    this.#error = error;
    if (this.isConnected) {
      const current = new Set(subscribed);
      const isReduced = this.channels.some((name) => this.#subscribed.has(name) && !current.has(name));
      this.#mustReportGap ||= isReduced; // a new leader did not know this tab in time, or a token allows less
      const before = this.#refused;
      this.#subscribed = new Set(this.channels.filter((name) => current.has(name)));
      this.#refused = this.#filter(refused);
      errors.push(...[...this.#refused].filter(([name]) => !before.has(name)).map(([, each]) => each));
      const isComplete = this.channels.every((name) => this.#subscribed.has(name) || this.#refused.has(name));
      if (this.#mustReportGap && isComplete) {
        this.gap();
      }
    }
    this.#page.changed();
    for (const each of new Set(errors)) {
      this.#page.error({ ...each, channels: this.channels.filter((name) => each.channels.includes(name)) });
    }
  }

  /** @param {import("./transport.js").Refused} refused */
  #filter(refused) {
    return new Map([...refused].filter(([name]) => this.channels.includes(name)));
  }

  /** Reports a gap immediately. */
  gap() {
    this.cancelGap();
    this.#page.gap();
  }

  /** Reports a gap after a random time: a server that lost its history affects all pages at the same moment. */
  gapLater() {
    if (!this.#gapJitter) {
      this.gap();
    } else {
      this.#gapTimer ||= setTimeout(() => this.gap(), Math.random() * this.#gapJitter);
    }
  }

  /** Reports a gap once the channels are subscribed again: a page that loads its state earlier could miss a change. */
  gapWhenSubscribed() {
    this.#subscribed.clear();
    this.#mustReportGap = true;
  }

  cancelGap() {
    clearTimeout(this.#gapTimer);
    this.#gapTimer = 0;
    this.#mustReportGap = false;
  }
}
