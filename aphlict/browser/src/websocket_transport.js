// @ts-check
/** The WebSocket. */

import { LONGEST, report, UNAUTHORIZED, warn } from "./transport.js";

/** @typedef {import("./options.js").Message} Message */
/** @typedef {import("./options.js").Settings} Settings */
/** @typedef {import("./transport.js").Refused} Refused */
/** @typedef {import("./transport.js").Sink} Sink */
/** @typedef {import("./transport.js").Transport} Transport */

/**
 * An answer to a command, or a pong.
 *
 * @typedef {object} Answer
 * @property {"ack" | "error" | "pong"} type
 * @property {number} [id]
 * @property {string} [last]
 * @property {number} [count]
 * @property {boolean} [recovered]
 * @property {string} [error]
 * @property {number} [status] of an error: as over HTTP
 * @property {string[]} [channels] of an error: those that were refused, where others were not
 * @property {number} [expires] seconds until the token does
 * @property {string[]} [unsubscribed] what a new token does not name
 */

const PROBE_TIME = 5_000;

/** @implements {Transport} */
export class Socket {
  #socket;
  #credential;
  #sink;
  /** @type {string[]} */ #wanted = [];
  /** @type {Set<string>} what the server was told */ #told = new Set();
  /** @type {Set<string>} what it acknowledged */ #confirmed = new Set();
  /** @type {Refused} */ #refused = new Map();
  /** @type {Map<number, (answer: Answer) => void>} */ #unanswered = new Map();
  /** @type {Message[] | undefined} what came before the answer to our replay */ #held = [];
  /** @type {Set<number>} the deadlines of the pings without an answer */ #pings = new Set();
  #lastId = 0;
  #started = false; // commands go out
  #again = false; // the replay came before some of the subscriptions
  #timer = 0;
  #renewal = 0;

  /**
   * @param {Settings} settings
   * @param {import("./credential.js").Credential} credential
   * @param {Sink} sink
   */
  constructor(settings, credential, sink) {
    this.#credential = credential;
    this.#sink = sink;
    this.#socket = new WebSocket(settings.base);
    this.#socket.onopen = () => {
      this.#timer = setInterval(() => this.#ping(settings.keepAlive), settings.keepAlive);
      this.#show().then(
        () => this.#start(),
        (error) => this.#end(error, UNAUTHORIZED),
      );
    };
    this.#socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    this.#socket.onclose = ({ code, reason }) => this.#end(reason || `close code ${code}`, code);
  }

  /** @param {string[]} channels */
  update(channels) {
    this.#wanted = channels;
    if (this.#started) {
      const wanted = new Set(channels);
      const added = channels.filter((name) => !this.#told.has(name));
      const gone = [...this.#told].filter((name) => !wanted.has(name));
      this.#told = wanted;
      gone.forEach((name) => this.#refused.delete(name));
      this.#tell("unsubscribe", gone, (name) => this.#confirmed.delete(name));
      this.#tell("subscribe", added, (name) => this.#confirmed.add(name));
    }
  }

  probe() {
    if (this.#started) {
      this.#ping(PROBE_TIME);
    }
  }

  authenticate() {
    if (this.#started) {
      this.#show().catch(() => {}); // the token before it is still valid for a while
    }
  }

  close() {
    clearInterval(this.#timer);
    clearTimeout(this.#renewal);
    this.#stopPings();
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }

  /** Shows the token, and the next one when that is due. */
  async #show() {
    const token = await this.#credential.get();
    if (token) {
      this.#send("auth", token, (answer) => this.#onShown(token, answer));
    }
  }

  /**
   * @param {string} token
   * @param {Answer} answer
   */
  #onShown(token, { error, expires, unsubscribed = [] }) {
    if (!error) {
      this.#credential.accept(token, expires);
      for (const name of [...unsubscribed, ...this.#refused.keys()]) {
        this.#told.delete(name); // what the token before did not name, this one may
        this.#confirmed.delete(name);
      }
      this.#refused.clear();
    } else {
      this.#credential.refuse(token);
      if (this.#held) {
        this.#end(error, UNAUTHORIZED);
        return;
      }
      warn(error); // the token before it is still valid for a while
    }
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(() => this.authenticate(), Math.min(this.#credential.renewIn, LONGEST));
    if (!this.#held) {
      this.update(this.#wanted);
    }
  }

  #start() {
    this.#started = true;
    this.update(this.#wanted);
    this.#replay();
  }

  #replay() {
    const after = this.#sink.after();
    this.#send(after.length ? "replay" : "ping", { after }, (answer) => this.#catchUp(answer));
  }

  /**
   * What came live between our subscription and our replay stands before the replayed messages, and belongs after.
   *
   * @param {Answer} answer
   */
  #catchUp({ error, count = 0, recovered }) {
    if (this.#again) {
      this.#again = false;
      this.#replay();
      return;
    }
    const held = /** @type {Message[]} */ (this.#held);
    const live = held.splice(0, held.length - count);
    this.#held = undefined;
    if (error || recovered === false) {
      error && warn(error);
      this.#sink.gap();
    }
    [...held, ...live].forEach(this.#sink.message);
  }

  /** @param {Answer | Message} frame */
  #receive(frame) {
    this.#stopPings();
    if ("subscribers" in frame) {
      this.#held ? this.#held.push(frame) : this.#sink.message(frame);
    } else if (frame.id) {
      this.#unanswered.get(frame.id)?.(frame);
      this.#unanswered.delete(frame.id);
      if (!this.#held && this.#socket.onclose) {
        this.#sink.mark(frame.last);
        this.#sink.open([...this.#confirmed], this.#refused);
      }
    }
  }

  /** @param {number} time in which anything has to come from the server */
  #ping(time) {
    this.#pings.add(setTimeout(() => this.#end("no answer to a ping"), time));
    this.#send("ping", null);
  }

  #stopPings() {
    this.#pings.forEach((timer) => clearTimeout(timer));
    this.#pings.clear();
  }

  /**
   * Where some of several names are refused, so are all: the others are sent again.
   *
   * @param {string} command
   * @param {string[]} names
   * @param {(name: string) => void} done
   */
  #tell(command, names, done) {
    if (names.length) {
      this.#send(command, names, ({ error, status, channels = names }) => {
        if (!error) {
          names.forEach(done);
        } else if (status == 401) {
          this.#end(error, UNAUTHORIZED);
        } else {
          report(error);
          channels.forEach((name) => this.#refused.set(name, error));
          const rest = names.filter((name) => this.#told.has(name) && !this.#refused.has(name));
          this.#again ||= !!this.#held && !!rest.length;
          this.#tell(command, rest, done);
        }
      });
    }
  }

  /**
   * @param {string} command
   * @param {unknown} data
   * @param {(answer: Answer) => void} [done]
   */
  #send(command, data, done = () => {}) {
    const id = ++this.#lastId;
    this.#unanswered.set(id, done);
    this.#socket.send(JSON.stringify({ command, data, id }));
  }

  /**
   * @param {string} reason
   * @param {number} [code]
   */
  #end(reason, code) {
    if (this.#socket.onclose) {
      this.close();
      this.#sink.end(reason, code);
    }
  }
}
