// @ts-check
/** The transports over plain HTTP: Server-Sent Events and long polling. */

import { connectionLost, createError, isTokenError, report, serverError, TransportError } from "./errors.js";
import { MAX_TIMEOUT } from "./transport.js";

/** @typedef {import("./options.js").Settings} Settings */
/** @typedef {import("./transport.js").Refused} Refused */
/** @typedef {import("./transport.js").Transport} Transport */
/** @typedef {import("./transport.js").TransportEvents} TransportEvents */

const STREAM_TIMEOUT = 60_000; // ms without data; the server sends a comment every 25 s
const POLL_WAIT = 25; // seconds for which the server holds a poll

/**
 * What both have in common: the URL of a request names the channels, so other channels need another request.
 *
 * @implements {Transport}
 */
class HttpTransport {
  /** @type {string[]} of the current request */ channels = [];
  #settings;
  #credential;
  /** @type {Set<string>} */ #wanted = new Set();
  /** @type {Refused} with the token of the current request */ #refused = new Map();
  #token = ""; // of the current request
  /** @type {AbortController | undefined} */ #request;
  /** @type {Promise<never>} rejects when the current request is aborted */ #aborted = new Promise(() => {});
  #timer = 0;
  #renewalTimer = 0;
  #deadline = 0; // of the current request

  /**
   * @param {Settings} settings
   * @param {import("./credential.js").Credential} credential
   * @param {TransportEvents} events
   */
  constructor(settings, credential, events) {
    this.#settings = settings;
    this.#credential = credential;
    this.timeout = settings.connectTimeout;
    this.events = events;
  }

  /** @param {string[]} channels */
  setChannels(channels) {
    const isSame = channels.length == this.#wanted.size && channels.every((name) => this.#wanted.has(name));
    if (!isSame || !this.#request) {
      this.#wanted = new Set(channels);
      this.authenticate();
    }
  }

  /** The timers of a sleeping device stop: the request is repeated only if its deadline has passed. */
  probe(/** @type {boolean} */ networkChanged) {
    if (networkChanged || Date.now() > this.#deadline) {
      this.authenticate();
    }
  }

  /** Repeats the request, with the current token. */
  authenticate() {
    this.close();
    for (const name of this.#refused.keys()) {
      this.#wanted.has(name) || this.#refused.delete(name);
    }
    if (!this.#wanted.size) {
      this.events.open([], this.#refused); // there is nothing to request
      return;
    }
    const request = (this.#request = new AbortController());
    const { signal } = request;
    this.#aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    this.#aborted.catch(() => {});
    this.run(signal).catch((error) => {
      if (request == this.#request) {
        this.close();
        this.events.end(error instanceof TransportError ? error.details : connectionLost(error.message ?? error));
      }
    });
  }

  close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#renewalTimer);
    this.#request?.abort();
    this.#request = undefined;
  }

  /**
   * Receives messages until the signal. Rejects if it fails.
   *
   * @param {AbortSignal} _signal
   * @returns {Promise<void>}
   */
  async run(_signal) {}

  /** Reports that everything up to now has been delivered. */
  open() {
    this.events.open(this.channels, this.#refused);
  }

  /**
   * Makes a request, which is aborted after `timeout` ms unless setDeadline() extends it.
   *
   * @param {string} endpoint
   * @param {AbortSignal} signal
   * @param {number} timeout
   * @param {string} [query]
   * @returns {Promise<Response>} a successful one
   */
  async request(endpoint, signal, timeout, query = "") {
    this.setDeadline(timeout);
    const token = await this.#getToken(signal);
    const channels = (this.channels = [...this.#wanted].filter((name) => !this.#refused.has(name)));
    if (!channels.length) {
      await this.#waitForToken();
    } else {
      const since = Date.now();
      const response = await this.#fetch(endpoint, token, signal, query);
      const seconds = response.headers.get("Aphlict-Token-Expires");
      if (seconds) {
        this.#credential.accept(token, Number(seconds), since);
      }
      if (response.ok && response.body) {
        return response;
      }
      await this.#onErrorResponse(response, token);
    }
    signal.throwIfAborted();
    return this.request(endpoint, signal, timeout, query);
  }

  /** @param {AbortSignal} signal */
  async #getToken(signal) {
    const unavailable = (/** @type {unknown} */ error) => {
      throw new TransportError(createError("token_unavailable", error));
    };
    const token = await Promise.race([this.#credential.get().catch(unavailable), this.#aborted]);
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
   * @param {string} query
   */
  #fetch(endpoint, token, signal, query) {
    const parameters = [
      ...this.channels.map((name) => `channel=${encodeURIComponent(name)}`),
      ...this.events.resumeAfter().map((id) => `after=${encodeURIComponent(id)}`),
      query,
    ];
    const url = `${this.#settings.base.replace("ws", "http")}${endpoint}?${parameters.join("&")}`;
    /** @type {HeadersInit} */ const headers = token ? { Authorization: `Bearer ${token}` } : {};
    return fetch(url, { signal, headers, cache: "no-store" });
  }

  /**
   * Returns if another request may succeed: without some of the channels, or with another token.
   *
   * @param {Response} response
   * @param {string} token
   */
  async #onErrorResponse(response, token) {
    const { status } = response;
    const body = await response.json().catch(() => null);
    if (!body?.error) {
      throw new Error(`HTTP status ${status}`); // of a proxy
    }
    const details = serverError({ ...body, status });
    const refused = this.channels.filter((name) => details.channels.includes(name));
    if (refused.length) {
      report(details);
      refused.forEach((name) => this.#refused.set(name, details));
    } else if (!isTokenError(details) || !this.#credential.refuse(token)) {
      throw new TransportError(details);
    }
  }

  /** All channels were refused. Another token may allow one. */
  async #waitForToken() {
    clearTimeout(this.#timer);
    this.#deadline = Infinity;
    this.open();
    await new Promise((resolve) => (this.#timer = setTimeout(resolve, this.#settings.maxReconnectDelay)));
  }

  /** @param {number} timeout ms from now, after which the request is aborted */
  setDeadline(timeout) {
    clearTimeout(this.#timer);
    this.#deadline = Date.now() + timeout;
    this.#timer = setTimeout(() => this.#request?.abort("no response in time"), timeout);
  }

  /** Repeats the request with another token before the current one expires. */
  renewInTime() {
    const request = this.#request;
    const renew = async () => {
      const token = await this.#credential.get().catch(() => "");
      if (token && request == this.#request) {
        token == this.#token ? this.renewInTime() : this.authenticate();
      }
    };
    this.#renewalTimer = setTimeout(renew, Math.min(this.#credential.renewIn, MAX_TIMEOUT));
  }
}

export class EventStreamTransport extends HttpTransport {
  /**
   * @override
   * @param {AbortSignal} signal
   */
  async run(signal) {
    const response = await this.request("events", signal, this.timeout);
    this.renewInTime();
    const body = /** @type {ReadableStream} */ (response.body);
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) {
        throw new Error("the event stream ended");
      }
      this.setDeadline(STREAM_TIMEOUT);
      const events = (rest + value).split("\n\n");
      rest = /** @type {string} */ (events.pop());
      events.forEach((event) => this.#onEvent(event));
      this.open();
    }
  }

  /** @param {string} event its lines */
  #onEvent(event) {
    /** @type {Record<string, string>} */
    const fields = { data: "" };
    for (const line of event.split("\n")) {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon);
      fields[name] = (name == "data" ? fields.data : "") + line.slice(colon + 1).trim();
    }
    if (fields.event == "gap") {
      this.events.gap();
    } else if (fields.data) {
      this.events.message(JSON.parse(fields.data));
    }
    if (fields.id) {
      this.events.position(fields.id);
    }
  }
}

export class PollTransport extends HttpTransport {
  /**
   * @override
   * @param {AbortSignal} signal
   */
  async run(signal) {
    for (let wait = 0; ; wait = POLL_WAIT) {
      const timeout = wait * 1000 + this.timeout;
      const response = await this.request("poll", signal, timeout, `wait=${wait}`);
      const { messages, last, recovered } = await response.json();
      signal.throwIfAborted();
      if (recovered === false) {
        this.events.gap();
      }
      messages.forEach(this.events.message);
      last && this.events.position(last);
      this.open();
    }
  }
}
