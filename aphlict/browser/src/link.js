// @ts-check
/** The one connection: connects, connects again, falls back. Knows nothing of tabs. */

import { EventStream, Poll, Socket, UNAUTHORIZED } from "./transports.js";

/** @typedef {import("./transports.js").Transport} Transport */

/**
 * @typedef {object} Owner
 * @property {() => string[]} after
 * @property {(message: import("./options.js").Message) => void} message
 * @property {(last: string | undefined) => void} mark
 * @property {() => void} gap
 * @property {() => void} changed `status` or `subscribed` is another
 */

const LADDER = [Socket, EventStream, Poll];
const NAMES = ["", "Server-Sent Events", "polling"]; // of what is tried instead of a WebSocket
const ATTEMPTS = 2; // of a WebSocket that never opened, before something else is tried
const STABLE = 5_000; // a connection that lasted so long was a good one
const RESTARTS = [1001, 1012];

export class Link {
  /** @type {Exclude<import("./options.js").Status, "closed">} */ status = "connecting";
  /** @type {string[]} the channels that are in force */ subscribed = [];
  #settings;
  #owner;
  /** @type {string[]} */ #channels = [];
  /** @type {Transport | undefined} */ #transport;
  #rung = 0;
  #attempts = 0; // that failed, since the last good connection
  #refused = 0; // WebSockets in a row that never opened
  #reason = "";
  #retry = 0;
  #deadline = 0;
  #upgrade = 0;
  #openedAt = 0;
  #webSocketWorks = false;

  /**
   * @param {import("./options.js").Settings} settings
   * @param {Owner} owner
   */
  constructor(settings, owner) {
    this.#settings = settings;
    this.#owner = owner;
  }

  /** @param {string[]} channels */
  want(channels) {
    this.#channels = channels;
    if (this.#transport) {
      this.#transport.update(channels);
    } else if (!this.#retry && channels.length) {
      this.#connect();
    }
  }

  /** Someone looks, or the computer woke up: nobody should wait for a timer. */
  poke() {
    if (this.#transport) {
      this.#transport.probe();
    } else if (this.#retry) {
      this.#connect();
    }
  }

  /** The network is back, maybe another one. */
  online() {
    this.#webSocketWorks = false;
    this.#refused = this.#attempts = 0;
    this.poke();
    this.#rung && this.#tryWebSocket();
  }

  close() {
    this.#stop();
    clearTimeout(this.#retry);
    clearInterval(this.#upgrade);
    this.#rung = 0; // a WebSocket that is being tried comes to nothing
  }

  #connect() {
    clearTimeout(this.#retry);
    this.#retry = this.#openedAt = 0;
    const { timeout } = this.#settings;
    this.#deadline = setTimeout(() => this.#end(`no answer in ${timeout / 1000} s`), timeout);
    const Way = LADDER[this.#rung] ?? Socket;
    this.#transport = new Way(this.#settings, {
      ...this.#owner,
      open: (channels) => this.#open(channels),
      end: (reason, code) => this.#end(reason, code),
    });
    this.#transport.update(this.#channels);
  }

  /** @param {string[]} channels */
  #open(channels) {
    clearTimeout(this.#deadline);
    if (!this.#openedAt) {
      this.#openedAt = Date.now();
      this.#webSocketWorks ||= !this.#rung;
      this.#refused = 0;
      this.#watchFallback();
    }
    this.subscribed = channels;
    this.status = this.#rung ? "fallback" : "open";
    this.#owner.changed();
  }

  #watchFallback() {
    clearInterval(this.#upgrade);
    if (this.#rung) {
      this.#upgrade = setInterval(() => this.#tryWebSocket(), this.#settings.upgradeAfter);
      this.#tryWebSocket(); // maybe the server was only down
    }
  }

  /**
   * @param {string} reason
   * @param {number} [code]
   */
  #end(reason, code) {
    this.#stop();
    const opened = this.#openedAt;
    if (opened && Date.now() - opened > STABLE) {
      this.#attempts = 0;
    }
    this.status = "connecting";
    this.subscribed = [];
    if (opened || code == UNAUTHORIZED || !this.#descend(reason)) {
      this.#retry = setTimeout(() => this.#connect(), this.#delay(code));
    } else {
      this.#connect();
    }
    this.#owner.changed();
  }

  /**
   * What never opened: whether the next way is to be tried at once. After the last comes the first, in its time.
   *
   * @param {string} reason
   */
  #descend(reason) {
    if (this.#rung) {
      this.#rung = (this.#rung + 1) % LADDER.length;
    } else if (!this.#webSocketWorks && ++this.#refused >= ATTEMPTS) {
      this.#rung = 1;
      this.#reason = reason;
    }
    return this.#rung > 0;
  }

  /**
   * Full jitter, so that nobody comes back at the same moment as everybody else.
   *
   * @param {number} [code]
   */
  #delay(code = 0) {
    const { minDelay, maxDelay, restartDelay } = this.#settings;
    const most = RESTARTS.includes(code)
      ? restartDelay
      : Math.min(maxDelay, minDelay * 2 ** this.#attempts++);
    return Math.random() * most;
  }

  /** What works is kept until a WebSocket has opened. */
  #tryWebSocket() {
    const socket = new WebSocket(this.#settings.base);
    setTimeout(() => socket.close(), this.#settings.timeout);
    socket.onerror = () => this.#warn();
    socket.onopen = () => socket.send('{"command":"ping"}');
    socket.onmessage = () => {
      socket.close();
      if (this.#rung) {
        this.#stop();
        clearInterval(this.#upgrade);
        this.#rung = 0;
        this.#connect();
      }
    };
  }

  #warn() {
    if (this.#reason && this.#rung) {
      console.warn(
        `aphlict: ${this.#settings.base} is reached by ${NAMES[this.#rung]}, as WebSocket failed twice ` +
          `(${this.#reason}): a proxy on the way may not pass on the upgrade`,
      );
      this.#reason = "";
    }
  }

  #stop() {
    clearTimeout(this.#deadline);
    this.#transport?.close();
    this.#transport = undefined;
  }
}
