// @ts-check
/** The connection to the server: connects, reconnects, and falls back to another transport. Shared by all tabs. */

import { Credential } from "./credential.js";
import { connectionLost, createError, isConnectionLost, isRejected, isTokenError, report, warn } from "./errors.js";
import { EventStreamTransport, PollTransport } from "./http_transport.js";
import { WebSocketTransport } from "./websocket_transport.js";

/** @typedef {import("./aphlict.js").ErrorDetails} ErrorDetails */
/** @typedef {import("./options.js").Settings} Settings */
/** @typedef {import("./transport.js").Refused} Refused */
/** @typedef {import("./transport.js").Transport} Transport */
/** @typedef {import("./transport.js").TransportEvents} TransportEvents */

/**
 * @typedef {Pick<TransportEvents, "resumeAfter" | "message" | "position" | "gap"> & {
 *   changed: () => void
 * }} ConnectionEvents `changed`: `state`, `subscribed`, `refused` or `error` has changed
 */

const TRANSPORTS = [WebSocketTransport, EventStreamTransport, PollTransport];
const FALLBACK_NAMES = ["", "Server-Sent Events", "polling"]; // by index of TRANSPORTS
const WEBSOCKET_ATTEMPTS = 2; // that fail before the first fallback is tried
const STABLE_AFTER = 5_000; // ms after which a connection resets the delay of the next reconnect
const RESTART_CODES = [1001, 1012]; // close codes of a server that stops

export class Connection {
  /** @type {Exclude<import("./aphlict.js").State, "disconnected">} */ state = "connecting";
  /** @type {string[]} acknowledged channels */ subscribed = [];
  /** @type {Refused} */ refused = new Map();
  /** @type {ErrorDetails | null} the last error of the server; null once a connection opens */ error = null;
  #settings;
  #credential;
  #events;
  /** @type {string[]} */ #channels = [];
  /** @type {Transport | undefined} */ #transport;
  #transportIndex = 0;
  #failedAttempts = 0; // since the last stable connection
  #failedWebSockets = 0; // in a row, that never opened
  #webSocketWorks = false; // it has opened on this network
  #openedAt = 0;
  #reconnectTimer = 0;
  #connectTimer = 0;
  #fallbackReason = "";
  #reported = ""; // the last message on the console
  /** @type {Transport | undefined} a WebSocket that may replace a fallback */ #upgrade;
  #upgradeInterval = 0;
  #upgradeTimer = 0;

  /**
   * @param {Settings} settings
   * @param {ConnectionEvents} events
   */
  constructor(settings, events) {
    this.#settings = settings;
    this.#credential = new Credential(settings.token);
    this.#events = events;
  }

  /** @param {string[]} channels */
  setChannels(channels) {
    const wanted = new Set((this.#channels = channels));
    this.subscribed = this.subscribed.filter((name) => wanted.has(name));
    this.refused = new Map([...this.refused].filter(([name]) => wanted.has(name)));
    this.#upgrade?.setChannels(channels);
    if (this.#transport) {
      this.#transport.setChannels(channels);
    } else if (!this.#reconnectTimer && this.state != "unauthorized" && channels.length) {
      this.#connect();
    }
  }

  /** @param {import("./aphlict.js").Token | undefined} token replaces the one before */
  setToken(token) {
    this.#credential.set(token);
    this.#reported = "";
    if (this.#reconnectTimer || this.state == "unauthorized") {
      this.#failedAttempts = 0;
      this.state = "connecting";
      this.error = null;
      this.#events.changed();
      this.#channels.length && this.#connect();
    } else {
      this.#transport?.authenticate();
    }
  }

  /** Detects a dead connection soon, and reconnects without further delay. */
  probe(networkChanged = false) {
    if (this.#transport) {
      this.#transport.probe(networkChanged);
    } else if (this.#reconnectTimer) {
      this.#connect();
    }
  }

  /** The device is online again, perhaps on another network. */
  onNetworkChange() {
    this.#webSocketWorks = false;
    this.#failedWebSockets = this.#failedAttempts = 0;
    this.#endUpgrade();
    this.probe(true);
    this.#transportIndex && this.#tryUpgrade();
  }

  close() {
    this.#closeTransport();
    clearTimeout(this.#reconnectTimer);
    this.#stopUpgrades();
  }

  #connect() {
    clearTimeout(this.#reconnectTimer);
    this.#reconnectTimer = this.#openedAt = 0;
    const { connectTimeout } = this.#settings;
    const timedOut = connectionLost(`no response within ${connectTimeout / 1000} s`);
    this.#connectTimer = setTimeout(() => this.#onFailure(timedOut), connectTimeout);
    try {
      this.#transport = this.#createTransport(TRANSPORTS[this.#transportIndex] ?? WebSocketTransport);
      this.#transport.setChannels(this.#channels);
    } catch (error) {
      // The browser forbids the URL, as ws:// in a page over https
      const details = createError("connection_forbidden", error);
      this.#report(details);
      this.#onFailure(details);
    }
  }

  /** @param {typeof TRANSPORTS[number]} Type */
  #createTransport(Type) {
    /** @type {Transport} */ const transport = new Type(this.#settings, this.#credential, {
      ...this.#events,
      open: (channels, refused) => this.#onOpen(transport, channels, refused),
      end: (error, closeCode) => this.#onEnd(transport, error, closeCode),
    });
    return transport;
  }

  /**
   * @param {Transport} transport
   * @param {string[]} channels
   * @param {Refused} refused
   */
  #onOpen(transport, channels, refused) {
    if (transport == this.#upgrade) {
      this.#upgrade = undefined;
      this.#closeTransport();
      clearTimeout(this.#reconnectTimer);
      this.#transport = transport;
      this.#reconnectTimer = this.#transportIndex = this.#openedAt = 0;
    }
    clearTimeout(this.#connectTimer);
    if (!this.#openedAt) {
      this.#openedAt = Date.now();
      this.#webSocketWorks ||= !this.#transportIndex;
      this.#failedWebSockets = 0;
      this.#startUpgrades();
    }
    this.#reported = "";
    this.error = null;
    this.subscribed = channels;
    this.refused = new Map(refused);
    this.state = this.#transportIndex ? "fallback" : "open";
    this.#events.changed();
  }

  /**
   * @param {Transport} transport
   * @param {ErrorDetails} error
   * @param {number} [closeCode]
   */
  #onEnd(transport, error, closeCode) {
    if (transport == this.#upgrade) {
      this.#endUpgrade();
      this.#warnOfFallback();
    } else if (transport == this.#transport) {
      this.#onFailure(error, closeCode);
    }
  }

  /**
   * @param {ErrorDetails} error
   * @param {number} [closeCode]
   */
  #onFailure(error, closeCode) {
    this.#closeTransport();
    const opened = this.#openedAt;
    if (opened && Date.now() - opened > STABLE_AFTER) {
      this.#failedAttempts = 0;
    }
    this.state = "connecting";
    this.subscribed = [];
    if (!isConnectionLost(error)) {
      this.error = error;
    }
    const needsToken = isTokenError(error);
    if (needsToken && !this.#credential.canRetry) {
      this.state = "unauthorized";
      this.#stopUpgrades();
      this.#report(error);
    } else if (isRejected(error)) {
      this.#report(error);
      this.#transportIndex = 0;
      this.#scheduleReconnect();
    } else if (opened || needsToken || !this.#selectFallback(error.message)) {
      needsToken && warn(error.message);
      this.#scheduleReconnect(closeCode);
    } else {
      this.#connect();
    }
    this.#events.changed();
  }

  /**
   * Selects the transport of the next attempt, after one that never opened. Returns whether to try it immediately,
   * which is false once all have failed.
   *
   * @param {string} reason
   */
  #selectFallback(reason) {
    if (this.#transportIndex) {
      this.#transportIndex = (this.#transportIndex + 1) % TRANSPORTS.length;
    } else if (!this.#webSocketWorks && ++this.#failedWebSockets >= WEBSOCKET_ATTEMPTS) {
      this.#transportIndex = 1;
      this.#fallbackReason = reason;
    }
    return this.#transportIndex > 0;
  }

  /**
   * Exponential backoff with full jitter: clients that lost their connections together come back one by one.
   *
   * @param {number} [closeCode]
   */
  #scheduleReconnect(closeCode = 0) {
    const { minReconnectDelay, maxReconnectDelay, maxRestartDelay } = this.#settings;
    const maxDelay = RESTART_CODES.includes(closeCode)
      ? maxRestartDelay
      : Math.min(maxReconnectDelay, minReconnectDelay * 2 ** this.#failedAttempts++);
    this.#reconnectTimer = setTimeout(() => this.#connect(), Math.random() * maxDelay);
  }

  #startUpgrades() {
    this.#stopUpgrades();
    if (this.#transportIndex) {
      const { webSocketRetryInterval } = this.#settings;
      this.#upgradeInterval = setInterval(() => this.#tryUpgrade(), webSocketRetryInterval);
      this.#tryUpgrade(); // the server may only have been down
    }
  }

  #stopUpgrades() {
    clearInterval(this.#upgradeInterval);
    this.#endUpgrade();
  }

  /** Connects a WebSocket beside the fallback, which it replaces when it opens. */
  #tryUpgrade() {
    if (!this.#upgrade) {
      try {
        const upgrade = (this.#upgrade = this.#createTransport(WebSocketTransport));
        upgrade.setChannels(this.#channels);
        const onTimeout = () => this.#onEnd(upgrade, connectionLost("timeout"));
        this.#upgradeTimer = setTimeout(onTimeout, this.#settings.connectTimeout);
      } catch {} // #connect has reported the same error
    }
  }

  #endUpgrade() {
    clearTimeout(this.#upgradeTimer);
    this.#upgrade?.close();
    this.#upgrade = undefined;
  }

  /** @param {ErrorDetails} error which goes to the console once, however often it is repeated */
  #report(error) {
    error.message == this.#reported || report(error);
    this.#reported = error.message;
  }

  #warnOfFallback() {
    if (this.#fallbackReason && this.#transportIndex) {
      warn(
        `using ${FALLBACK_NAMES[this.#transportIndex]} for ${this.#settings.base}, because WebSocket failed twice ` +
          `(${this.#fallbackReason}): a proxy may not forward the upgrade`,
      );
      this.#fallbackReason = "";
    }
  }

  #closeTransport() {
    clearTimeout(this.#connectTimer);
    this.#transport?.close();
    this.#transport = undefined;
  }
}
