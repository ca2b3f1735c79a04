// @ts-check
/** The token of a page. A page's function is called for another after 3/5 of the lifetime, and after a refusal. */

import { warn } from "./errors.js";

/** @typedef {import("./aphlict.js").Token} Token */

const RENEW_AFTER = 0.6; // of the lifetime: the timers of a hidden tab are late
const MIN_RETRY = 1_000; // ms between two attempts to renew a token that is still valid

export class Credential {
  /** @type {Token | undefined} */ #source;
  #token = ""; // for the next request or command
  #accepted = ""; // the last token that the server accepted
  #expires = 0; // time at which `#accepted` expires
  #renewal = Infinity; // time from which `get` requests another token

  /** @param {Token | undefined} source */
  constructor(source) {
    this.set(source);
  }

  /** @param {Token | undefined} source */
  set(source) {
    this.#source = source;
    this.#token = typeof source == "string" ? source : "";
    this.#forget();
  }

  #forget() {
    this.#accepted = "";
    this.#expires = 0;
    this.#renewal = Infinity;
  }

  /** Milliseconds until `get` requests another token; Infinity if the page has no function for that. */
  get renewIn() {
    return Math.max(0, this.#renewal - Date.now());
  }

  /** Whether another attempt may succeed without a call of `set`. */
  get canRetry() {
    return typeof this.#source == "function" || !!this.#token;
  }

  /**
   * Resolves with the token to send, empty if there is none. Rejects if the page's function does and no token is valid.
   *
   * @returns {Promise<string>}
   */
  async get() {
    const source = this.#source;
    const now = Date.now();
    if (typeof source == "function" && (!this.#token || now >= this.#renewal)) {
      const isValid = now < this.#expires;
      if (isValid) {
        this.#renewal = now + Math.max(MIN_RETRY, (this.#expires - now) / 3); // of the next attempt, if this one fails
      }
      /** @type {string} */ let token;
      try {
        token = await source();
      } catch (error) {
        warn(error);
        if (!isValid && source == this.#source) {
          throw error;
        }
        token = "";
      }
      if (source != this.#source) {
        return this.get(); // `set` was called meanwhile
      }
      this.#token = token || this.#accepted;
    }
    return this.#token;
  }

  /**
   * The server accepted a token.
   *
   * @param {string} token
   * @param {number} [seconds] for which it is valid
   * @param {number} [since] time of the request
   */
  accept(token, seconds = Infinity, since = Date.now()) {
    if (token != this.#accepted) {
      this.#accepted = token;
      this.#expires = since + seconds * 1000;
      if (typeof this.#source == "function") {
        this.#renewal = since + Math.max(MIN_RETRY, seconds * 1000 * RENEW_AFTER);
      }
    }
  }

  /**
   * The server refused a token. Returns whether `get` has another one to send immediately.
   *
   * @param {string} token
   */
  refuse(token) {
    if (token && token == this.#accepted) {
      this.#token = "";
      this.#forget();
      return typeof this.#source == "function";
    }
    if (token == this.#token) {
      this.#token = this.#accepted;
    }
    return Date.now() < this.#expires;
  }
}
