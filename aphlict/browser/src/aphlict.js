// @ts-check
/** The public API. `npm run build` makes the type declarations from this file, so all public types are here. */

import { createError } from "./errors.js";
import { createSettings } from "./options.js";
import { Tab } from "./tab.js";

/**
 * The state of the connection: `connecting`, `open` (a WebSocket), `fallback` (Server-Sent Events or polling),
 * `unauthorized` (the server requires a token, and has refused the one of this page: set `token`) or `disconnected`
 * (after `disconnect()`).
 *
 * @typedef {"connecting" | "open" | "fallback" | "unauthorized" | "disconnected"} State
 */

/**
 * The state of a subscription: `pending` until the server acknowledges it, and while the connection is lost.
 *
 * @typedef {"pending" | "subscribed" | "refused" | "closed"} SubscriptionState
 */

/**
 * A JWT, or a function that is called for another one whenever it is needed.
 *
 * @typedef {string | (() => string | Promise<string>)} Token
 */

/**
 * A published object as the server sends it. `T` is what the publisher puts into it.
 *
 * @template [T={ [key: string]: any }]
 * @typedef {T & { uniqueID: string, subscribers: string[] }} Message `subscribers`: those of its channels that the tabs
 *   of this browser have subscribed to
 */

/**
 * @typedef {object} ErrorDetails
 * @property {string} code stable, such as `channel_forbidden`; docs/browser.md lists the codes
 * @property {string} message a sentence for people, which may change
 * @property {number} status the HTTP status of the error, or 0 if it does not come from the server
 * @property {string[]} channels those of this page that were refused; empty if the error concerns the whole connection
 */

/**
 * Times are in milliseconds.
 *
 * @typedef {object} Options
 * @property {string} [instance] of a server with several; default: the instance in the URL
 * @property {Token} [token] default: the parameter `token` of the URL
 * @property {boolean} [sharedConnection] one connection for all tabs (default), or one for this tab alone
 * @property {number} [pingInterval] time between two pings (15,000)
 * @property {number} [minReconnectDelay] maximum delay of the first reconnect; it doubles with each attempt (1,000)
 * @property {number} [maxReconnectDelay] maximum delay of any reconnect (60,000)
 * @property {number} [maxRestartDelay] maximum delay of the reconnect to a server that restarts (2,000)
 * @property {number} [connectTimeout] timeout of an attempt to connect (10,000)
 * @property {number} [webSocketRetryInterval] time after which a fallback tries WebSocket again (600,000)
 * @property {number} [leaderCheckInterval] time between two checks that the tab with the connection is alive (5,000)
 * @property {number} [gapJitter] maximum random delay of a `gap` that the server caused (10,000)
 */

/**
 * @typedef {object} SubscriptionProperties
 * @property {Promise<void>} ready resolves when the server has acknowledged the subscription; rejects with an
 *   `AphlictError` if it refuses it
 * @property {SubscriptionState} state
 * @property {ErrorDetails | null} error the reason of the state `refused`
 * @property {() => void} unsubscribe
 */

/**
 * A function that unsubscribes, with the state of the subscription.
 *
 * @typedef {(() => void) & Readonly<SubscriptionProperties>} Subscription
 */

/**
 * @template T
 * @typedef {object} AphlictEvents
 * @property {MessageEvent<Message<T>>} message a message on a channel of this tab
 * @property {Event} gap messages may have been missed: load the state of the page again
 * @property {Event & ErrorDetails} error the server refuses a channel, the token or the connection
 * @property {Event} statechange `state` has changed
 */

/**
 * @template T
 * @typedef {object} AphlictEventTarget
 * @property {{
 *   <K extends keyof AphlictEvents<T>>(type: K, listener: ((event: AphlictEvents<T>[K]) => void) | null,
 *     options?: boolean | AddEventListenerOptions): void;
 *   (type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions):
 *     void;
 * }} addEventListener
 * @property {{
 *   <K extends keyof AphlictEvents<T>>(type: K, listener: ((event: AphlictEvents<T>[K]) => void) | null,
 *     options?: boolean | EventListenerOptions): void;
 *   (type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
 * }} removeEventListener
 * @property {(event: Event) => boolean} dispatchEvent
 */

/** @type {new <T>() => AphlictEventTarget<T>} */
const TypedEventTarget = EventTarget;

/** The reason why a promise of this module rejects. */
export class AphlictError extends Error {
  /** @param {ErrorDetails} details */
  constructor({ code, message, status, channels }) {
    super(message);
    this.name = "AphlictError";
    this.code = code;
    this.status = status;
    this.channels = channels;
  }
}

/**
 * A client of an Aphlict server, which shares one connection with all tabs of its origin. `T` is the type of what
 * publishers put into messages.
 *
 * @template {object} [T={ [key: string]: any }]
 * @extends {TypedEventTarget<T>}
 */
export class Aphlict extends TypedEventTarget {
  /** @type {Map<string, Set<{ callback: (message: Message<T>) => void }>>} by channel */ #listeners = new Map();
  /** @type {Set<(value?: unknown) => void>} resolved at each change */ #waiting = new Set();
  /** @type {State} */ #state = "connecting";
  #tab;

  /**
   * @param {string | URL} url of the client port, such as `wss://notify.example.com/ws/`
   * @param {Options} [options]
   */
  constructor(url, options) {
    super();
    this.#tab = new Tab(createSettings(url, options), {
      message: (message) => this.#deliver(/** @type {Message<T>} */ (message)),
      gap: () => this.dispatchEvent(new Event("gap")),
      error: (error) => this.dispatchEvent(Object.assign(new Event("error"), error)),
      changed: () => this.#onChange(),
    });
  }

  get state() {
    return this.#state;
  }

  /** @param {Token | undefined} token replaces the option `token` */
  set token(token) {
    this.#tab.setToken(token);
  }

  /**
   * Subscribes to one channel or several. A callback is called once for each message, whatever its channels.
   *
   * @param {string | readonly string[]} channels
   * @param {(message: Message<T>) => void} [callback] without one, messages are delivered as `message` events only
   * @returns {Subscription}
   */
  subscribe(channels, callback = () => {}) {
    const names = [channels].flat();
    const listener = { callback };
    for (const name of names) {
      this.#listeners.set(name, (this.#listeners.get(name) ?? new Set()).add(listener));
    }
    this.#tab.setChannels([...this.#listeners.keys()]);
    let isClosed = false;
    const unsubscribe = () => {
      if (!isClosed) {
        isClosed = true;
        for (const name of names) {
          const listeners = this.#listeners.get(name);
          listeners?.delete(listener);
          listeners?.size || this.#listeners.delete(name);
        }
        this.#tab.setChannels([...this.#listeners.keys()]);
        this.#wake();
      }
    };
    return this.#createSubscription(unsubscribe, () => (isClosed ? null : names));
  }

  /**
   * Resolves when the server has acknowledged all channels that are subscribed: messages that are published later are
   * delivered. Rejects with an `AphlictError` if the server refuses one of them, or the token.
   *
   * @returns {Promise<void>}
   */
  ready() {
    return this.#whenSubscribed(() => [...this.#listeners.keys()]);
  }

  /** Connects again after `disconnect()`. While a reconnect is delayed, it is tried immediately. */
  connect() {
    this.#tab.connect();
  }

  /** Closes the connection of this tab. Its subscriptions remain, and are pending until `connect()`. */
  disconnect() {
    this.#tab.disconnect();
  }

  /**
   * @param {() => void} unsubscribe
   * @param {() => string[] | null} getChannels null after `unsubscribe`
   * @returns {Subscription}
   */
  #createSubscription(unsubscribe, getChannels) {
    /** @type {Promise<void> | undefined} */ let ready;
    let isRejected = false;
    const getError = () => this.#tab.errorOf(getChannels() ?? []);
    const getState = () => {
      const channels = getChannels();
      return !channels
        ? "closed"
        : this.#tab.isSubscribed(channels)
          ? "subscribed"
          : getError()
            ? "refused"
            : "pending";
    };
    const getReady = () => {
      if (!ready || (isRejected && getState() != "refused")) {
        isRejected = false;
        ready = this.#whenSubscribed(getChannels);
        ready.catch(() => (isRejected = true)); // and a page that ignores it has no unhandled rejection
      }
      return ready;
    };
    const properties = { ready: { get: getReady }, state: { get: getState }, error: { get: getError } };
    const all = { ...properties, unsubscribe: { value: unsubscribe } };
    return Object.defineProperties(/** @type {any} */ (unsubscribe), all);
  }

  /** @param {() => string[] | null} getChannels null if the subscription was closed */
  async #whenSubscribed(getChannels) {
    for (;;) {
      await null; // channels of this turn are sent at its end
      const channels = getChannels();
      if (!channels || this.#state == "disconnected") {
        throw new AphlictError(createError(channels ? "disconnected" : "unsubscribed", "the page has ended it"));
      }
      const error = this.#tab.errorOf(channels);
      if (error) {
        throw new AphlictError(error);
      }
      if (this.#tab.isSubscribed(channels)) {
        return;
      }
      await new Promise((resolve) => this.#waiting.add(resolve));
    }
  }

  /** @param {Message<T>} message */
  #deliver(message) {
    const listeners = message.subscribers.flatMap((name) => [...(this.#listeners.get(name) ?? [])]);
    if (!listeners.length) {
      return; // a message for another tab
    }
    for (const callback of new Set(listeners.map((listener) => listener.callback))) {
      try {
        callback(message);
      } catch (error) {
        reportError(error); // the other callbacks are called nevertheless
      }
    }
    this.dispatchEvent(new MessageEvent("message", { data: message }));
  }

  #onChange() {
    const { state } = this.#tab;
    if (this.#state != state) {
      this.#state = state;
      this.dispatchEvent(new Event("statechange"));
    }
    this.#wake();
  }

  #wake() {
    this.#waiting.forEach((resolve) => resolve());
    this.#waiting.clear();
  }
}
