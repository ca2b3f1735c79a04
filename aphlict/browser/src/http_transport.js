// @ts-check
/** The two ways over plain HTTP: Server-Sent Events and polling. */

import { LONGEST, REJECTED, report, UNAUTHORIZED } from "./transport.js";

/** @typedef {import("./options.js").Settings} Settings */
/** @typedef {import("./transport.js").Refused} Refused */
/** @typedef {import("./transport.js").Sink} Sink */
/** @typedef {import("./transport.js").Transport} Transport */

const SILENCE = 60_000; // the server writes a comment every 25 s
const POLL_TIME = 25; // seconds

/** An answer of the server that another transport would get as well. */
class Refusal extends Error {
  /**
   * @param {string} message
   * @param {number} code
   */
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/**
 * @param {unknown} error why there is no token
 * @returns {never}
 */
const unauthorized = (error) => {
  throw new Refusal(`${error}`, UNAUTHORIZED);
};

/**
 * What the two share: a request says which channels, so other channels make another request.
 *
 * @implements {Transport}
 */
class Requests {
  /** @type {string[]} the channels of the last request */ channels = [];
  #settings;
  #credential;
  /** @type {Set<string>} */ #wanted = new Set();
  /** @type {Refused} by the token of the last request */ #refused = new Map();
  #token = ""; // of the last request
  /** @type {AbortController | undefined} */ #request;
  /** @type {Promise<never>} rejects when the request is given up */ #aborted = new Promise(() => {});
  #timer = 0;
  #renewal = 0;
  #due = 0; // when something should have come from the server

  /**
   * @param {Settings} settings
   * @param {import("./credential.js").Credential} credential
   * @param {Sink} sink
   */
  constructor(settings, credential, sink) {
    this.#settings = settings;
    this.#credential = credential;
    this.timeout = settings.timeout;
    this.sink = sink;
  }

  /** @param {string[]} channels */
  update(channels) {
    const isSame = channels.length == this.#wanted.size && channels.every((name) => this.#wanted.has(name));
    if (!isSame || !this.#request) {
      this.#wanted = new Set(channels);
      this.authenticate();
    }
  }

  /** The request is left alone unless the computer slept past its deadline. */
  probe(/** @type {boolean} */ changed) {
    if (changed || Date.now() > this.#due) {
      this.authenticate();
    }
  }

  /** Makes the request again, with the token as it is now. */
  authenticate() {
    this.close();
    for (const name of this.#refused.keys()) {
      this.#wanted.has(name) || this.#refused.delete(name);
    }
    if (!this.#wanted.size) {
      this.sink.open([], this.#refused); // nothing to ask for
      return;
    }
    const request = (this.#request = new AbortController());
    const { signal } = request;
    this.#aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    this.#aborted.catch(() => {});
    this.run(signal).catch((error) => {
      if (request == this.#request) {
        this.close();
        this.sink.end(error.message ?? error, error.code);
      }
    });
  }

  close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#renewal);
    this.#request?.abort();
    this.#request = undefined;
  }

  /**
   * Listens until the signal; rejects when that is no longer possible.
   *
   * @param {AbortSignal} _signal
   * @returns {Promise<void>}
   */
  async run(_signal) {}

  /** Everything up to now is here. */
  open() {
    this.sink.open(this.channels, this.#refused);
  }

  /**
   * Asks an endpoint, and gives up after some milliseconds, unless allow() puts that off.
   *
   * @param {string} endpoint
   * @param {AbortSignal} signal
   * @param {number} time
   * @param {string} [more]
   * @returns {Promise<Response>}
   */
  async ask(endpoint, signal, time, more = "") {
    this.allow(time);
    const token = await this.#getToken(signal);
    const channels = (this.channels = [...this.#wanted].filter((name) => !this.#refused.has(name)));
    if (!channels.length) {
      await this.#wait(); // for a token that names one of them
    } else {
      const since = Date.now();
      const response = await this.#fetch(endpoint, token, signal, more);
      const seconds = response.headers.get("Aphlict-Token-Expires");
      if (seconds) {
        this.#credential.accept(token, Number(seconds), since);
      }
      if (response.ok && response.body) {
        return response;
      }
      await this.#onRefusal(response, token);
    }
    signal.throwIfAborted();
    return this.ask(endpoint, signal, time, more);
  }

  /** @param {AbortSignal} signal */
  async #getToken(signal) {
    const token = await Promise.race([this.#credential.get().catch(unauthorized), this.#aborted]);
    signal.throwIfAborted();
    if (token != this.#token) {
      this.#token = token;
      this.#refused.clear();
    }
    return token;
  }

  /**
   * @param {string} endpoint
   * @param {string} token
   * @param {AbortSignal} signal
   * @param {string} more
   */
  #fetch(endpoint, token, signal, more) {
    const query = [
      ...this.channels.map((name) => `channel=${encodeURIComponent(name)}`),
      ...this.sink.after().map((id) => `after=${encodeURIComponent(id)}`),
      more,
    ];
    const url = `${this.#settings.base.replace("ws", "http")}${endpoint}?${query.join("&")}`;
    /** @type {HeadersInit} */ const headers = token ? { Authorization: `Bearer ${token}` } : {};
    return fetch(url, { signal, headers, cache: "no-store" });
  }

  /**
   * Returns where another request may succeed at once: without some channels, or with another token.
   *
   * @param {Response} response
   * @param {string} token
   */
  async #onRefusal(response, token) {
    const { status } = response;
    const { error, channels = [] } = await response.json().catch(() => ({}));
    const refused = this.channels.filter((name) => channels.includes(name));
    if (refused.length) {
      report(error);
      refused.forEach((name) => this.#refused.set(name, error));
    } else if (error && (status == 401 || status == 403)) {
      if (!this.#credential.refuse(token)) {
        unauthorized(error);
      }
    } else {
      throw new Refusal(error ?? `the server answers ${status}`, error && status == 400 ? REJECTED : 0);
    }
  }

  /** Waits with nothing to ask for. */
  async #wait() {
    clearTimeout(this.#timer);
    this.#due = Infinity;
    this.open();
    await new Promise((resolve) => (this.#timer = setTimeout(resolve, this.#settings.maxDelay)));
  }

  /** @param {number} time after which the request is given up */
  allow(time) {
    clearTimeout(this.#timer);
    this.#due = Date.now() + time;
    this.#timer = setTimeout(() => this.#request?.abort("no answer in time"), time);
  }

  /** Makes the request again before its token expires, once there is another one. */
  renewInTime() {
    const request = this.#request;
    const renew = async () => {
      const token = await this.#credential.get().catch(() => "");
      if (token && request == this.#request) {
        token == this.#token ? this.renewInTime() : this.authenticate();
      }
    };
    this.#renewal = setTimeout(renew, Math.min(this.#credential.renewIn, LONGEST));
  }
}

export class EventStream extends Requests {
  /**
   * @override
   * @param {AbortSignal} signal
   */
  async run(signal) {
    const response = await this.ask("events", signal, this.timeout);
    this.renewInTime();
    const body = /** @type {ReadableStream} */ (response.body);
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) {
        throw new Error("the event stream ended");
      }
      this.allow(SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = /** @type {string} */ (blocks.pop());
      blocks.forEach((block) => this.#event(block));
      this.open();
    }
  }

  /** @param {string} block */
  #event(block) {
    /** @type {Record<string, string>} */
    const fields = { data: "" };
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon);
      fields[name] = (name == "data" ? fields.data : "") + line.slice(colon + 1).trim();
    }
    if (fields.event == "gap") {
      this.sink.gap();
    } else if (fields.data) {
      this.sink.message(JSON.parse(fields.data));
    } else {
      this.sink.mark(fields.id);
    }
  }
}

export class Poll extends Requests {
  /**
   * @override
   * @param {AbortSignal} signal
   */
  async run(signal) {
    for (let wait = 0; ; wait = POLL_TIME) {
      const time = wait * 1000 + this.timeout;
      const response = await this.ask("poll", signal, time, `wait=${wait}`);
      const { messages, last, recovered } = await response.json();
      signal.throwIfAborted();
      if (recovered === false) {
        this.sink.gap();
      }
      messages.forEach(this.sink.message);
      this.sink.mark(last);
      this.open();
    }
  }
}
