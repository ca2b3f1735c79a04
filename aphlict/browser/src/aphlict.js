// @ts-check
/** What a page uses: channels, callbacks, events and a status. Everything else is behind it. */

import { settle } from "./options.js";
import { Tab } from "./tab.js";

/** @typedef {import("./options.js").Message} Message */
/** @typedef {import("./options.js").Options} Options */
/** @typedef {import("./options.js").Status} Status */
/** @typedef {(message: Message) => void} Callback */
/** @typedef {{ callback: Callback }} Listener */

/**
 * Listens to channels of an Aphlict server, over one connection for all tabs of an origin.
 *
 * Events: `message` (a MessageEvent, the message is its `data`), `gap` (messages may have been missed: load the
 * state of the page again) and `statuschange` (see `status`).
 */
export class Aphlict extends EventTarget {
  /** @type {Map<string, Set<Listener>>} */ #listeners = new Map();
  /** @type {Set<() => void>} */ #waiting = new Set();
  /** @type {Status} */ #status = "connecting";
  #tab;

  /**
   * @param {string | URL} url of the client port, as `wss://notify.example.com/ws/`
   * @param {Options} [options]
   */
  constructor(url, options) {
    super();
    this.#tab = new Tab(settle(url, options), {
      message: (message) => this.#deliver(message),
      gap: () => this.dispatchEvent(new Event("gap")),
      changed: (status) => this.#change(status),
    });
  }

  /**
   * `connecting`, `open` (a WebSocket), `fallback` (Server-Sent Events or polling), `unauthorized` (the server asks
   * for a token, and has refused the one there is: set `token`) or `closed`.
   */
  get status() {
    return this.#status;
  }

  /** @param {import("./options.js").Token | undefined} token shown from now on, in place of the option of that name */
  set token(token) {
    this.#tab.setToken(token);
  }

  /**
   * Listens to a channel. A callback that listens to several channels of a message is called once.
   *
   * @param {string} channel
   * @param {Callback} [callback] where it is left out, the channel's messages come as `message` events only
   * @returns {() => void} what ends this subscription
   */
  subscribe(channel, callback = () => {}) {
    const listener = { callback };
    const listeners = this.#listeners.get(channel) ?? new Set();
    this.#listeners.set(channel, listeners.add(listener));
    this.#want();
    return () => {
      if (listeners.delete(listener) && !listeners.size) {
        this.#listeners.delete(channel);
        this.#want();
      }
    };
  }

  /**
   * Waits until the server has all channels that are subscribed now: what is published after that arrives. Rejects
   * where it refuses one of them, or the token.
   *
   * @returns {Promise<void>}
   */
  async ready() {
    await null; // channels that were subscribed in this turn go out at its end
    while (this.#status != "closed") {
      const channels = [...this.#listeners.keys()];
      const refusal = this.#tab.refusal(channels);
      if (refusal) {
        throw new Error(refusal);
      }
      if (this.#tab.covers(channels)) {
        return;
      }
      await new Promise((resolve) => this.#waiting.add(() => resolve(null)));
    }
  }

  /** Ends everything, for good. Other tabs go on. */
  close() {
    this.#listeners.clear();
    this.#tab.close();
  }

  #want() {
    this.#tab.want([...this.#listeners.keys()]);
  }

  /** @param {Message} message */
  #deliver(message) {
    const listeners = message.subscribers.flatMap((name) => [...(this.#listeners.get(name) ?? [])]);
    if (!listeners.length) {
      return; // it is for another tab
    }
    for (const callback of new Set(listeners.map((listener) => listener.callback))) {
      try {
        callback(message);
      } catch (error) {
        reportError(error); // a page's mistake is the page's, and other callbacks have their turn
      }
    }
    this.dispatchEvent(new MessageEvent("message", { data: message }));
  }

  /** @param {Status} status */
  #change(status) {
    if (this.#status != status) {
      this.#status = status;
      this.dispatchEvent(new Event("statuschange"));
    }
    for (const resolve of this.#waiting) {
      resolve();
    }
    this.#waiting.clear();
  }
}
