// @ts-check
/**
 * The ways to the server. Each is made by the link, tells its news to a `Sink`, and has the shape of `Transport`:
 * it resumes after what the sink has, and once closed it says nothing more.
 */

/** @typedef {import("./options.js").Message} Message */
/** @typedef {import("./options.js").Settings} Settings */

/**
 * @typedef {object} Sink
 * @property {() => string[]} after the uniqueIDs to resume after, oldest first
 * @property {(channels: string[]) => void} open everything up to now is here; these channels are in force
 * @property {(message: Message) => void} message
 * @property {(last: string | undefined) => void} mark the server's history has come to `last`
 * @property {() => void} gap messages may be missing before the next one
 * @property {(reason: string, code?: number) => void} end this transport is over
 */

/**
 * @typedef {object} Transport
 * @property {(channels: string[]) => void} update listens to these channels, no others
 * @property {() => void} probe ends soon if the server does not answer
 * @property {() => void} close
 */

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
 * @property {number} [expires] seconds until the token does
 * @property {string[]} [unsubscribed] what a new token does not name
 */

const PROBE_TIME = 5_000;
const SILENCE = 60_000; // the server writes a comment every 25 s
const POLL_TIME = 25; // seconds
const LONGEST = 2e9; // milliseconds, 23 days: a timer can wait a little longer

/** What the server closes with where the token is not, or no longer, good: the network is not to blame. */
export const UNAUTHORIZED = 4001;

/** @param {unknown} error what the server refused, or why there is no token */
const warn = (error) => console.warn(`aphlict: ${error}`);

/** @param {Settings} settings */
const tokenOf = async ({ token }) => (typeof token == "function" ? token() : token);

/** @implements {Transport} */
export class Socket {
  #socket;
  #sink;
  /** @type {string[]} */ #wanted = [];
  /** @type {Set<string>} what the server was told */ #told = new Set();
  /** @type {Set<string>} what it acknowledged */ #confirmed = new Set();
  /** @type {Map<number, (answer: Answer) => void>} */ #unanswered = new Map();
  /** @type {Message[] | undefined} what came before the answer to our replay */ #held = [];
  #lastId = 0;
  #silent = false;
  #timer = 0;
  #renewal = 0;

  /**
   * @param {Settings} settings
   * @param {Sink} sink
   */
  constructor(settings, sink) {
    this.#sink = sink;
    this.#socket = new WebSocket(settings.base);
    this.#socket.onopen = () => {
      this.#timer = setInterval(() => this.#beat(), settings.keepAlive);
      this.#show(settings).then(
        () => this.#resume(),
        (error) => this.#end(error, UNAUTHORIZED),
      );
    };
    this.#socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    this.#socket.onclose = (event) => this.#end(`close code ${event.code}`, event.code);
  }

  /** @param {string[]} channels */
  update(channels) {
    this.#wanted = channels;
    if (this.#lastId) {
      const wanted = new Set(channels);
      const added = channels.filter((name) => !this.#told.has(name));
      const gone = [...this.#told].filter((name) => !wanted.has(name));
      this.#told = wanted;
      this.#tell("unsubscribe", gone, (name) => this.#confirmed.delete(name));
      this.#tell("subscribe", added, (name) => this.#confirmed.add(name));
    }
  }

  probe() {
    if (this.#lastId) {
      this.#ping();
      setTimeout(() => this.#silent && this.#beat(), PROBE_TIME);
    }
  }

  close() {
    clearInterval(this.#timer);
    clearTimeout(this.#renewal);
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }

  /**
   * Shows the token, and another one well before that expires: the timers of a hidden tab are late.
   *
   * @param {Settings} settings
   */
  async #show(settings) {
    const token = await tokenOf(settings);
    if (token) {
      this.#send("auth", token, ({ error, expires = LONGEST, unsubscribed = [] }) => {
        const time = Math.min(1000 + expires * 600, LONGEST);
        this.#renewal = setTimeout(() => this.#show(settings).catch(warn), time);
        unsubscribed.forEach((name) => this.#confirmed.delete(name));
        this.#told = new Set(this.#confirmed); // what the token before did not name, this one may
        error && warn(error);
        if (!this.#held) {
          this.update(this.#wanted); // if it was refused, the token before it still holds for a while
        } else if (error) {
          this.#end(error, UNAUTHORIZED);
        }
      });
    }
  }

  #resume() {
    this.#lastId++; // from now on commands go out
    this.update(this.#wanted);
    const after = this.#sink.after();
    this.#send(after.length ? "replay" : "ping", { after }, (answer) => this.#catchUp(answer));
  }

  /**
   * What came live between our subscription and our replay stands before the replayed messages, and belongs after.
   *
   * @param {Answer} answer
   */
  #catchUp({ count = 0, recovered }) {
    const held = /** @type {Message[]} */ (this.#held);
    const live = held.splice(0, held.length - count);
    this.#held = undefined;
    if (recovered === false) {
      this.#sink.gap();
    }
    [...held, ...live].forEach(this.#sink.message);
  }

  /** @param {Answer | Message} frame */
  #receive(frame) {
    this.#silent = false;
    if ("subscribers" in frame) {
      this.#held ? this.#held.push(frame) : this.#sink.message(frame);
    } else if (frame.id) {
      this.#unanswered.get(frame.id)?.(frame);
      this.#unanswered.delete(frame.id);
      if (!this.#held) {
        this.#sink.mark(frame.last);
        this.#sink.open([...this.#confirmed]);
      }
    }
  }

  #beat() {
    this.#silent ? this.#end("no answer to a ping") : this.#ping();
  }

  #ping() {
    this.#silent = true;
    this.#send("ping", null);
  }

  /**
   * Where one of several names is refused, so are all: then each has its turn alone.
   *
   * @param {string} command
   * @param {string[]} names
   * @param {(name: string) => void} done
   */
  #tell(command, names, done) {
    if (names.length) {
      this.#send(command, names, ({ error }) => {
        if (!error) {
          names.forEach(done);
        } else if (names[1]) {
          names.forEach((name) => this.#tell(command, [name], done));
        } else {
          warn(error);
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

/**
 * What the two ways over plain HTTP share: a request says which channels, so other channels make another request.
 *
 * @implements {Transport}
 */
class Requests {
  #settings;
  /** @type {string[]} */ #channels = [];
  /** @type {AbortController | undefined} */ #request;
  #timer = 0;

  /**
   * @param {Settings} settings
   * @param {Sink} sink
   */
  constructor(settings, sink) {
    this.#settings = settings;
    this.timeout = settings.timeout;
    this.sink = sink;
  }

  /** @param {string[]} channels */
  update(channels) {
    this.close();
    this.#channels = channels;
    if (!channels.length) {
      this.sink.open(channels); // nothing to ask for
      return;
    }
    const request = (this.#request = new AbortController());
    this.run(channels, request.signal).catch((error) => {
      if (request == this.#request) {
        this.close();
        this.sink.end(error);
      }
    });
  }

  probe() {
    this.update(this.#channels);
  }

  close() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#request = undefined;
  }

  /**
   * Listens until the signal; rejects when that is no longer possible.
   *
   * @param {string[]} _channels
   * @param {AbortSignal} _signal
   * @returns {Promise<void>}
   */
  async run(_channels, _signal) {}

  /**
   * Asks an endpoint, and gives up after some milliseconds, unless allow() puts that off.
   *
   * @param {string} endpoint
   * @param {string[]} channels
   * @param {AbortSignal} signal
   * @param {number} time
   * @param {string} [more]
   */
  async ask(endpoint, channels, signal, time, more = "") {
    this.allow(time);
    const token = await tokenOf(this.#settings);
    const query = [
      ...channels.map((name) => `channel=${encodeURIComponent(name)}`),
      ...this.sink.after().map((id) => `after=${encodeURIComponent(id)}`),
      more,
    ];
    const url = `${this.#settings.base.replace("ws", "http")}${endpoint}?${query.join("&")}`;
    /** @type {HeadersInit} */ const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(url, { signal, headers, cache: "no-store" });
    if (!response.ok || !response.body) {
      throw new Error(`${endpoint} answers ${response.status}`);
    }
    return response;
  }

  /** @param {number} time after which the request is given up */
  allow(time) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#request?.abort("no answer in time"), time);
  }
}

export class EventStream extends Requests {
  /**
   * @override
   * @param {string[]} channels
   * @param {AbortSignal} signal
   */
  async run(channels, signal) {
    const response = await this.ask("events", channels, signal, this.timeout);
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
      this.sink.open(channels);
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
    }
    this.sink.mark(fields.id);
  }
}

export class Poll extends Requests {
  /**
   * @override
   * @param {string[]} channels
   * @param {AbortSignal} signal
   */
  async run(channels, signal) {
    for (let wait = 0; ; wait = POLL_TIME) {
      const time = wait * 1000 + this.timeout;
      const response = await this.ask("poll", channels, signal, time, `wait=${wait}`);
      const { messages, last, recovered } = await response.json();
      signal.throwIfAborted();
      if (recovered === false) {
        this.sink.gap();
      }
      messages.forEach(this.sink.message);
      this.sink.mark(last);
      this.sink.open(channels);
    }
  }
}
