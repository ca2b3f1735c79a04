// @ts-check
/** The transport over a WebSocket. */

import { connectionLost, createError, isTokenError, report, serverError, warn } from "./errors.js";
import { MAX_TIMEOUT } from "./transport.js";

/** @typedef {import("./aphlict.js").ErrorDetails} ErrorDetails */
/** @typedef {import("./aphlict.js").Message} Message */
/** @typedef {import("./options.js").Settings} Settings */
/** @typedef {import("./transport.js").Refused} Refused */
/** @typedef {import("./transport.js").Transport} Transport */
/** @typedef {import("./transport.js").TransportEvents} TransportEvents */

/**
 * The reply to a command, or a pong.
 *
 * @typedef {object} Reply
 * @property {"ack" | "error" | "pong"} type
 * @property {number} [id]
 * @property {string} [last] the position up to which everything has been sent
 * @property {number} [count] of `replay`: messages sent before this reply
 * @property {boolean} [recovered] of `replay`: false if messages may be missing
 * @property {number} [expires] of `auth`: seconds until the token expires
 * @property {string[]} [unsubscribed] of `auth`: channels that the new token does not allow
 * @property {string} [error]
 * @property {string} [code] of an error
 * @property {number} [status] of an error, as over HTTP
 * @property {string[]} [channels] of an error: the only ones that were refused
 */

const TOKEN_EXPIRED = 4001; // close code
const MAX_UNCONFIRMED = 12; // messages after which a new position is requested; a request to resume names 14
const POSITION_RETRY = 1_000; // ms, at most, after which it is requested again from a server that was busy

/** @implements {Transport} */
export class WebSocketTransport {
  #socket;
  #credential;
  #events;
  #probeTimeout;
  /** @type {string[]} */ #channels = [];
  /** @type {Set<string>} sent to the server */ #requested = new Set();
  /** @type {Set<string>} */ #acknowledged = new Set();
  /** @type {Refused} */ #refused = new Map();
  /** @type {Map<number, (reply: Reply) => void>} by the ID of the command */ #replyHandlers = new Map();
  /** @type {Message[] | undefined} received before the reply to `replay` */ #buffer = [];
  /** @type {Set<number>} timeouts of pings without a reply */ #pingTimers = new Set();
  #lastId = 0;
  #isStarted = false; // the token was sent, so other commands may be
  #mustReplayAgain = false; // the replay came before some of the subscriptions
  #pingInterval = 0;
  #renewalTimer = 0;
  #unconfirmed = 0; // messages since the position
  #positionTimer = 0;

  /**
   * @param {Settings} settings
   * @param {import("./credential.js").Credential} credential
   * @param {TransportEvents} events
   */
  constructor(settings, credential, events) {
    this.#credential = credential;
    this.#events = events;
    this.#probeTimeout = settings.connectTimeout / 2;
    this.#socket = new WebSocket(settings.base);
    this.#socket.onopen = () => {
      const { pingInterval } = settings;
      this.#pingInterval = setInterval(() => this.#ping(pingInterval), pingInterval);
      this.#sendToken().then(
        () => this.#start(),
        (error) => this.#end(createError("token_unavailable", error)),
      );
    };
    this.#socket.onmessage = (event) => this.#onFrame(JSON.parse(event.data));
    this.#socket.onclose = ({ code, reason }) => {
      const error = reason || `close code ${code}`;
      const isExpired = code == TOKEN_EXPIRED;
      this.#end(isExpired ? createError("token_expired", error, 401) : connectionLost(error), code);
    };
  }

  /** @param {string[]} channels */
  setChannels(channels) {
    this.#channels = channels;
    if (this.#isStarted) {
      const wanted = new Set(channels);
      const added = channels.filter((name) => !this.#requested.has(name));
      const removed = [...this.#requested].filter((name) => !wanted.has(name));
      this.#requested = wanted;
      removed.forEach((name) => this.#refused.delete(name));
      this.#sendChannels("unsubscribe", removed, (name) => this.#acknowledged.delete(name));
      this.#sendChannels("subscribe", added, (name) => this.#acknowledged.add(name));
    }
  }

  probe() {
    if (this.#isStarted) {
      this.#ping(this.#probeTimeout);
    }
  }

  authenticate() {
    if (this.#isStarted) {
      this.#sendToken().catch(() => {}); // the token before is still valid
    }
  }

  close() {
    clearInterval(this.#pingInterval);
    clearTimeout(this.#renewalTimer);
    clearTimeout(this.#positionTimer);
    this.#clearPings();
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }

  async #sendToken() {
    const token = await this.#credential.get();
    if (token) {
      this.#send("auth", token, (reply) => this.#onTokenReply(token, reply));
    }
  }

  /**
   * @param {string} token
   * @param {Reply} reply
   */
  #onTokenReply(token, reply) {
    const { error, expires, unsubscribed = [] } = reply;
    if (!error) {
      this.#credential.accept(token, expires);
      for (const name of [...unsubscribed, ...this.#refused.keys()]) {
        this.#requested.delete(name); // another token may allow them
        this.#acknowledged.delete(name);
      }
      this.#refused.clear();
    } else {
      this.#credential.refuse(token);
      if (this.#buffer) {
        const details = serverError(reply);
        this.#end(isTokenError(details) ? details : { ...details, code: "token_invalid" });
        return;
      }
      warn(error); // the token before is still valid
    }
    clearTimeout(this.#renewalTimer);
    const delay = Math.min(this.#credential.renewIn, MAX_TIMEOUT);
    this.#renewalTimer = setTimeout(() => this.authenticate(), delay);
    if (!this.#buffer) {
      this.setChannels(this.#channels);
    }
  }

  #start() {
    this.#isStarted = true;
    this.setChannels(this.#channels);
    this.#replay();
  }

  #replay() {
    const after = this.#events.resumeAfter();
    this.#send(after.length ? "replay" : "ping", { after }, (reply) => this.#onReplayed(reply));
  }

  /**
   * Messages that were published between the subscription and the replay were received before the replayed messages,
   * and are newer.
   *
   * @param {Reply} reply
   */
  #onReplayed({ error, count = 0, recovered }) {
    if (this.#mustReplayAgain) {
      this.#mustReplayAgain = false;
      this.#replay();
      return;
    }
    const replayed = /** @type {Message[]} */ (this.#buffer);
    const live = replayed.splice(0, replayed.length - count);
    this.#buffer = undefined;
    if (error || recovered === false) {
      error && warn(error);
      this.#events.gap();
    }
    [...replayed, ...live].forEach(this.#events.message);
  }

  /** @param {Reply | Message} frame */
  #onFrame(frame) {
    this.#clearPings();
    if ("subscribers" in frame) {
      this.#buffer ? this.#buffer.push(frame) : this.#onMessage(frame);
    } else if (frame.id) {
      this.#replyHandlers.get(frame.id)?.(frame);
      this.#replyHandlers.delete(frame.id);
      if (!this.#buffer && this.#socket.onclose) {
        this.#onPosition(frame.last);
        this.#events.open([...this.#acknowledged], this.#refused);
      }
    }
  }

  /** @param {Message} message */
  #onMessage(message) {
    this.#events.message(message);
    if (++this.#unconfirmed == MAX_UNCONFIRMED) {
      this.#requestPosition();
    }
  }

  /** @param {string | undefined} position of a reply, which covers all messages received before it */
  #onPosition(position) {
    clearTimeout(this.#positionTimer);
    if (position) {
      // Random, as the clients of a channel would otherwise send their requests at the same moment
      this.#unconfirmed = Math.floor((Math.random() * MAX_UNCONFIRMED) / 2);
      this.#events.position(position);
    } else {
      this.#positionTimer = setTimeout(() => this.#requestPosition(), Math.random() * POSITION_RETRY);
    }
  }

  #requestPosition() {
    this.#send("ping", null);
  }

  /** @param {number} timeout ms within which any frame must arrive */
  #ping(timeout) {
    this.#pingTimers.add(setTimeout(() => this.#end(connectionLost("ping timeout")), timeout));
    this.#send("ping", null);
  }

  #clearPings() {
    this.#pingTimers.forEach((timer) => clearTimeout(timer));
    this.#pingTimers.clear();
  }

  /**
   * The server carries out a command for all channels or for none. If it refuses some, the others are sent again.
   *
   * @param {string} command
   * @param {string[]} names
   * @param {(name: string) => void} onAcknowledged
   */
  #sendChannels(command, names, onAcknowledged) {
    if (names.length) {
      this.#send(command, names, (reply) => {
        if (!reply.error) {
          names.forEach(onAcknowledged);
          return;
        }
        const details = serverError({ channels: names, ...reply });
        if (isTokenError(details)) {
          this.#end({ ...details, channels: [] });
          return;
        }
        report(details);
        details.channels.forEach((name) => this.#refused.set(name, details));
        const rest = names.filter((name) => this.#requested.has(name) && !this.#refused.has(name));
        this.#mustReplayAgain ||= !!this.#buffer && !!rest.length;
        this.#sendChannels(command, rest, onAcknowledged);
      });
    }
  }

  /**
   * @param {string} command
   * @param {unknown} data
   * @param {(reply: Reply) => void} [onReply]
   */
  #send(command, data, onReply = () => {}) {
    const id = ++this.#lastId;
    this.#replyHandlers.set(id, onReply);
    this.#socket.send(JSON.stringify({ command, data, id }));
  }

  /**
   * @param {ErrorDetails} error
   * @param {number} [closeCode]
   */
  #end(error, closeCode) {
    if (this.#socket.onclose) {
      this.close();
      this.#events.end(error, closeCode);
    }
  }
}
