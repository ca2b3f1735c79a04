// @ts-check
/** The one connection: connects, connects again, falls back. Knows nothing of tabs. */

import { Credential } from "./credential.js";
import { EventStream, Poll } from "./http_transport.js";
import { Socket } from "./websocket_transport.js";
import { REJECTED, report, UNAUTHORIZED, warn } from "./transport.js";

/** @typedef {import("./transport.js").Refused} Refused */
/** @typedef {import("./transport.js").Transport} Transport */
/** @typedef {import("./options.js").Settings} Settings */

/**
 * @typedef {object} Owner
 * @property {() => string[]} after
 * @property {(message: import("./options.js").Message) => void} message
 * @property {(last: string | undefined) => void} mark
 * @property {() => void} gap
 * @property {() => void} changed `status`, `subscribed` or `refused` is another
 */

const LADDER = [Socket, EventStream, Poll];
const NAMES = ["", "Server-Sent Events", "polling"]; // of what is tried instead of a WebSocket
const ATTEMPTS = 2; // of a WebSocket that never opened, before something else is tried
const STABLE = 5_000; // a connection that lasted so long was a good one
const RESTARTS = [1001, 1012];

export class Link {
  /** @type {Exclude<import("./options.js").Status, "closed">} */ status = "connecting";
  /** @type {string[]} the channels that are in force */ subscribed = [];
  /** @type {Refused} those that the server refused */ refused = new Map();
  error = ""; // why the last connection ended
  #settings;
  #credential;
  #owner;
  /** @type {string[]} */ #channels = [];
  /** @type {Transport | undefined} */ #transport;
  /** @type {Transport | undefined} a WebSocket that may replace a fallback */ #trial;
  #rung = 0;
  #attempts = 0; // that failed, since the last good connection
  #refused = 0; // WebSockets in a row that never opened
  #reason = "";
  #reported = ""; // the last error on the console
  #retry = 0;
  #deadline = 0;
  #upgrade = 0;
  #trialDeadline = 0;
  #openedAt = 0;
  #webSocketWorks = false;

  /**
   * @param {Settings} settings
   * @param {Owner} owner
   */
  constructor(settings, owner) {
    this.#settings = settings;
    this.#credential = new Credential(settings.token);
    this.#owner = owner;
  }

  /** @param {string[]} channels */
  want(channels) {
    const wanted = new Set((this.#channels = channels));
    this.subscribed = this.subscribed.filter((name) => wanted.has(name));
    this.refused = new Map([...this.refused].filter(([name]) => wanted.has(name)));
    this.#trial?.update(channels);
    if (this.#transport) {
      this.#transport.update(channels);
    } else if (!this.#retry && this.status != "unauthorized" && channels.length) {
      this.#connect();
    }
  }

  /** @param {import("./options.js").Token | undefined} token shown from now on */
  setToken(token) {
    this.#credential.set(token);
    this.#reported = "";
    if (this.#retry || this.status == "unauthorized") {
      this.#attempts = 0;
      this.status = "connecting";
      this.#owner.changed();
      this.#channels.length && this.#connect();
    } else {
      this.#transport?.authenticate();
    }
  }

  /** Someone looks, or the computer woke up: nobody should wait for a timer. */
  poke(changed = false) {
    if (this.#transport) {
      this.#transport.probe(changed);
    } else if (this.#retry) {
      this.#connect();
    }
  }

  /** The network is back, maybe another one. */
  online() {
    this.#webSocketWorks = false;
    this.#refused = this.#attempts = 0;
    this.#endTrial();
    this.poke(true);
    this.#rung && this.#tryWebSocket();
  }

  close() {
    this.#stop();
    clearTimeout(this.#retry);
    this.#stopUpgrade();
  }

  #connect() {
    clearTimeout(this.#retry);
    this.#retry = this.#openedAt = 0;
    const { timeout } = this.#settings;
    this.#deadline = setTimeout(() => this.#fail(`no answer in ${timeout / 1000} s`), timeout);
    try {
      this.#transport = this.#make(LADDER[this.#rung] ?? Socket);
      this.#transport.update(this.#channels);
    } catch (error) {
      this.#report(`${error}`); // as where a page over https names a server without TLS
      this.#fail(`${error}`);
    }
  }

  /** @param {new (settings: Settings, credential: Credential, sink: import("./transport.js").Sink) => Transport} Way */
  #make(Way) {
    /** @type {Transport} */ const transport = new Way(this.#settings, this.#credential, {
      ...this.#owner,
      open: (channels, refused) => this.#open(transport, channels, refused),
      end: (reason, code) => this.#end(transport, reason, code),
    });
    return transport;
  }

  /**
   * @param {Transport} transport
   * @param {string[]} channels
   * @param {Refused} refused
   */
  #open(transport, channels, refused) {
    if (transport == this.#trial) {
      this.#trial = undefined;
      this.#stop();
      clearTimeout(this.#retry);
      this.#transport = transport;
      this.#retry = this.#rung = this.#openedAt = 0;
    }
    clearTimeout(this.#deadline);
    if (!this.#openedAt) {
      this.#openedAt = Date.now();
      this.#webSocketWorks ||= !this.#rung;
      this.#refused = 0;
      this.#watchFallback();
    }
    this.#reported = "";
    this.subscribed = channels;
    this.refused = new Map(refused);
    this.status = this.#rung ? "fallback" : "open";
    this.#owner.changed();
  }

  #watchFallback() {
    this.#stopUpgrade();
    if (this.#rung) {
      this.#upgrade = setInterval(() => this.#tryWebSocket(), this.#settings.upgradeAfter);
      this.#tryWebSocket(); // maybe the server was only down
    }
  }

  #stopUpgrade() {
    clearInterval(this.#upgrade);
    this.#endTrial();
  }

  /**
   * @param {Transport} transport
   * @param {string} reason
   * @param {number} [code]
   */
  #end(transport, reason, code) {
    if (transport == this.#trial) {
      this.#endTrial();
      this.#warn();
    } else if (transport == this.#transport) {
      this.#fail(reason, code);
    }
  }

  /**
   * @param {string} reason
   * @param {number} [code]
   */
  #fail(reason, code) {
    this.#stop();
    const opened = this.#openedAt;
    if (opened && Date.now() - opened > STABLE) {
      this.#attempts = 0;
    }
    this.status = "connecting";
    this.subscribed = [];
    this.error = reason;
    if (code == UNAUTHORIZED && !this.#credential.canRetry) {
      this.status = "unauthorized"; // until there is another token
      this.#stopUpgrade();
      this.#report(reason);
    } else if (code == REJECTED) {
      this.#report(reason);
      this.#rung = 0; // the next fallback would have the same answer
      this.#retry = setTimeout(() => this.#connect(), this.#delay());
    } else if (opened || code == UNAUTHORIZED || !this.#descend(reason)) {
      code == UNAUTHORIZED && warn(reason);
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

  /** What works is kept until a WebSocket has opened, which then takes its place. */
  #tryWebSocket() {
    if (!this.#trial) {
      try {
        const trial = (this.#trial = this.#make(Socket));
        trial.update(this.#channels);
        const { timeout } = this.#settings;
        this.#trialDeadline = setTimeout(() => this.#end(trial, "no answer in time"), timeout);
      } catch {} // it was reported when it was the first choice
    }
  }

  #endTrial() {
    clearTimeout(this.#trialDeadline);
    this.#trial?.close();
    this.#trial = undefined;
  }

  /** @param {string} error what the page has to change; once, however often it is tried */
  #report(error) {
    error == this.#reported || report(error);
    this.#reported = error;
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
