// @ts-check
/**
 * One tab among those of its origin. One of them leads: it holds a lock and has the link; what arrives there goes to
 * all tabs over a BroadcastChannel, as a chain of steps, each naming the one before. A tab that misses a step asks for
 * it, so every tab has every step once and in order, and any of them can go on where the leader stopped.
 */

import { Link } from "./connection.js";
import { hold } from "./lock.js";
import { NOTES } from "./tab_messages.js";
import { Stream } from "./message_log.js";

/** @typedef {import("./options.js").Message} Message */
/** @typedef {import("./options.js").Status} Status */
/** @typedef {import("./message_log.js").Entry} Entry */

/**
 * @typedef {object} Page
 * @property {(message: Message) => void} message
 * @property {() => void} gap
 * @property {(status: Status) => void} changed the status, or the channels in force
 */

/** @typedef {import("./tab_messages.js").Note} Note */
/** @typedef {import("./tab_messages.js").StateNote} StateNote */
/** @typedef {import("./tab_messages.js").FromLeader} FromLeader */
/** @typedef {import("./tab_messages.js").Resend} Resend */

const GREETING = 500; // how long a new leader waits for tabs it has not heard of

/** What is known before there is a link. @type {Omit<import("./tab_messages.js").State, "greet">} */
const NOTHING = { status: "connecting", subscribed: [], refused: new Map() };

export class Tab {
  #settings;
  #page;
  #name;
  #shared;
  #id = "";
  #stream = new Stream();
  /** @type {string[]} */ #channels = [];
  /** @type {Map<string, string[]>} the channels of the other tabs */ #others = new Map();
  /** @type {Status} */ #status = "connecting";
  /** @type {Set<string>} */ #subscribed = new Set();
  /** @type {Map<string, string>} the channels that the server refused, and why */ #refused = new Map();
  #error = ""; // why the status is `unauthorized`
  #isTried = false; // our token was refused, or we have none
  #term = 0;
  /** @type {Link | undefined} */ #link;
  /** @type {AbortController | undefined} ends our leadership */ #leading;
  /** @type {AbortController | undefined} gives up our place in the queue for the lock, or the lock */ #place;
  /** @type {AbortController | undefined} lets go of the lock that says we are here */ #presence;
  /** @type {BroadcastChannel | undefined} */ #channel;
  #listening = new AbortController();
  #watch = 0;
  #heard = false; // of the leader, since the last look
  #unanswered = 0; // looks in a row at which it did not answer
  #asked = false;
  #gapTimer = 0;
  #telling = false; // a note of what we want is going to be sent

  /**
   * @param {import("./options.js").Settings} settings
   * @param {Page} page
   */
  constructor(settings, page) {
    this.#settings = settings;
    this.#page = page;
    this.#name = `aphlict ${NOTES} ${settings.base}`;
    this.#shared = settings.share && !!navigator.locks;
    this.#listen();
    this.#join();
  }

  /** @param {string[]} channels */
  want(channels) {
    this.#channels = channels;
    this.#subscribed = new Set(channels.filter((name) => this.#subscribed.has(name)));
    this.#refused = new Map([...this.#refused].filter(([name]) => channels.includes(name)));
    if (!this.#telling) {
      this.#telling = true;
      queueMicrotask(() => this.#tell());
    }
  }

  /**
   * Whether these channels are in force now.
   *
   * @param {string[]} channels
   */
  covers(channels) {
    return channels.every((name) => this.#settled && this.#subscribed.has(name));
  }

  /**
   * Why one of these channels is not going to be in force; undefined where none was refused.
   *
   * @param {string[]} channels
   */
  refusal(channels) {
    return this.#status == "unauthorized"
      ? this.#error
      : channels.map((name) => this.#settled && this.#refused.get(name)).find(Boolean);
  }

  /** @param {import("./options.js").Token | undefined} token */
  setToken(token) {
    this.#settings.token = token;
    this.#isTried = false;
    if (this.#link) {
      this.#link.setToken(token);
    } else if (this.#status == "unauthorized") {
      this.#takeOver();
    }
  }

  close() {
    clearTimeout(this.#gapTimer);
    this.#listening.abort();
    this.#leave();
    this.#update("closed", []);
  }

  get #settled() {
    return this.#status == "open" || this.#status == "fallback";
  }

  // Coming and going

  #listen() {
    const { signal } = this.#listening;
    /** @type {(name: string, hear: (event: any) => void, target?: EventTarget) => void} */
    const on = (name, hear, target = globalThis) => target.addEventListener(name, hear, { signal });
    on("online", () => this.#link?.online());
    on("pagehide", () => this.#hide());
    on("pageshow", (event) => event.persisted && this.#comeBack());
    const { document } = globalThis; // a worker has none
    if (document) {
      on("visibilitychange", () => document.hidden || this.#poke(), document);
      on("freeze", () => this.#stepDown(), document);
      on("resume", () => this.#compete(), document);
    }
  }

  #join() {
    if (!this.#shared) {
      this.#compete();
      return;
    }
    this.#telling = true; // not before our lock says that we are here: a leader would take us for gone
    this.#id = crypto.randomUUID();
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = (event) => this.#receive(event.data);
    const presence = (this.#presence = new AbortController());
    hold(`${this.#name} ${this.#id}`, presence.signal, () => {
      this.#tell();
      this.#compete();
    }).catch(() => presence.signal.aborted || this.#goAlone());
    this.#watch = setInterval(() => this.#look(), this.#settings.patience);
  }

  #hide() {
    this.#leave();
    this.#update("connecting", []); // should it come back, it has to connect first
  }

  #leave() {
    this.#post({ kind: "bye", tab: this.#id });
    this.#stepDown();
    this.#presence?.abort();
    this.#disconnect();
  }

  #disconnect() {
    this.#channel?.close();
    this.#channel = undefined;
    clearInterval(this.#watch);
  }

  /** The page may have no locks, as in a sandboxed frame. */
  #goAlone() {
    this.#disconnect();
    this.#shared = this.#telling = false;
    this.#compete();
  }

  /** A page out of the back/forward cache: nobody listened for it meanwhile. */
  #comeBack() {
    if (this.#shared) {
      this.#stream = new Stream();
      this.#others.clear();
      this.#gap();
    }
    this.#join();
  }

  // The lock

  #compete() {
    this.#shared ? this.#seek() : this.#lead();
  }

  /** Queues for the lock, or takes it from a leader that is silent. */
  #seek(steal = false) {
    this.#stepDown();
    const place = (this.#place = new AbortController());
    hold(this.#name, place.signal, () => this.#lead(), steal).catch(() => {
      place.signal.aborted || this.#seek(); // it was taken from us
    });
  }

  /** The leader has no token that the server accepts, and we may have one. */
  #takeOver() {
    this.#update("connecting", []);
    this.#seek(true);
  }

  #stepDown() {
    this.#place?.abort();
    this.#resign();
  }

  #resign() {
    this.#leading?.abort();
    this.#leading = undefined;
    this.#link?.close();
    this.#link = undefined;
  }

  /** Nobody waits for ever for a leader that does not answer: it may be frozen. One tab asks for all. */
  #look() {
    if (this.#leading || this.#heard) {
      this.#unanswered = 0;
      this.#heard = false;
    } else if (this.#unanswered++ < 2) {
      this.#post({ kind: "ask", poke: false });
    } else {
      this.#unanswered = 0;
      this.#seek(true);
    }
  }

  #poke() {
    this.#link ? this.#link.poke() : this.#post({ kind: "ask", poke: true });
  }

  // Leading

  async #lead() {
    this.#resign();
    const leading = (this.#leading = new AbortController());
    this.#term = Math.max(Date.now(), this.#term + 1);
    if (this.#shared) {
      await this.#gather(leading.signal);
    }
    if (!leading.signal.aborted) {
      this.#link = new Link(this.#settings, {
        after: () => this.#stream.recent(),
        message: (message) => this.#step(message.uniqueID, message),
        mark: (last) => last && this.#step(last),
        gap: () => {
          this.#tellGap();
          this.#gapLater();
        },
        changed: () => this.#tellState(),
      });
      this.#subscribeAll();
    }
  }

  /**
   * Learns what all tabs want, which decides what is resumed.
   *
   * @param {AbortSignal} signal
   */
  async #gather(signal) {
    const { held = [] } = await navigator.locks.query();
    const prefix = `${this.#name} `;
    const tabs = held.flatMap(({ name = "" }) => (name.startsWith(prefix) ? [name.slice(prefix.length)] : []));
    for (const tab of this.#others.keys()) {
      tabs.includes(tab) ? this.#attend(tab, signal) : this.#others.delete(tab);
    }
    this.#post({ kind: "state", term: this.#term, ...NOTHING, greet: true });
    const deadline = Date.now() + GREETING;
    while (tabs.some((tab) => tab != this.#id && !this.#others.has(tab)) && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, GREETING / 20));
    }
  }

  /**
   * Forgets a tab when the lock that says it is here comes free.
   *
   * @param {string} tab
   * @param {AbortSignal} signal
   */
  #attend(tab, signal) {
    navigator.locks
      .request(`${this.#name} ${tab}`, { signal }, () => this.#forget(tab))
      .catch(() => {});
  }

  /** @param {string} tab */
  #forget(tab) {
    this.#others.delete(tab);
    this.#subscribeAll();
  }

  #subscribeAll() {
    this.#link?.want([...new Set([this.#channels, ...this.#others.values()].flat())]);
  }

  /**
   * @param {string} id
   * @param {Message} [message]
   */
  #step(id, message) {
    if (!this.#stream.has(id)) {
      const entry = { after: this.#stream.last, id, message };
      this.#post({ kind: "entry", term: this.#term, ...entry });
      this.#take(entry);
    }
  }

  #tellState() {
    if (this.#leading) {
      const { status, subscribed, refused, error } = this.#link ?? NOTHING;
      const { last } = this.#stream;
      this.#post({ kind: "state", term: this.#term, status, subscribed, refused, error, last });
      this.#isTried ||= status == "unauthorized";
      this.#update(status, subscribed, refused, error);
    }
  }

  /** @param {string} [to] */
  #tellGap(to) {
    this.#post({ kind: "gap", term: this.#term, to, last: this.#stream.last });
  }

  /** @param {Resend} note */
  #resend({ tab, after }) {
    if (this.#link && this.#settled) {
      const entries = this.#stream.since(after);
      entries?.forEach((entry) => this.#post({ kind: "entry", term: this.#term, to: tab, ...entry }));
      entries ?? this.#tellGap(tab);
    }
  }

  // Talking with the other tabs

  #tell() {
    this.#telling = false;
    this.#post({ kind: "want", tab: this.#id, channels: this.#channels });
    this.#subscribeAll();
    this.#tellState(); // another tab may have had our channels before
  }

  /** @param {Note} note */
  #post(note) {
    this.#channel?.postMessage(note);
  }

  /** @param {Note} note */
  #receive(note) {
    if ("term" in note) {
      this.#hear(note);
    } else if (note.kind == "want") {
      const known = this.#others.has(note.tab);
      this.#others.set(note.tab, note.channels);
      if (this.#leading && !known) {
        this.#attend(note.tab, this.#leading.signal);
      }
      this.#subscribeAll();
      this.#tellState();
    } else if (note.kind == "bye") {
      this.#forget(note.tab);
    } else if (note.kind == "resend") {
      this.#resend(note);
    } else {
      note.poke && this.#link?.poke();
      this.#tellState();
    }
  }

  /** @param {FromLeader} note */
  #hear(note) {
    if (note.term > this.#term) {
      this.#term = note.term;
      this.#asked = false;
      this.#resign(); // we were taken for dead, and another leads
    }
    if (note.term == this.#term && (!note.to || note.to == this.#id)) {
      this.#heard = true;
      if (note.kind == "entry") {
        this.#follow(note);
      } else if (note.kind == "gap") {
        this.#stream.last = note.last;
        this.#asked = false;
        this.#gapLater();
      } else {
        this.#hearState(note);
      }
    }
  }

  /** @param {StateNote} note */
  #hearState({ status, subscribed, refused, error, last, greet }) {
    this.#stream.last ??= last;
    if (greet) {
      this.#tell();
    }
    this.#update(status, subscribed, refused, error);
    if (status == "unauthorized" && this.#settings.token && !this.#isTried) {
      this.#takeOver();
    } else if (this.#settled && last && last != this.#stream.last && !this.#stream.has(last)) {
      this.#lack();
    }
  }

  /** @param {Entry} entry */
  #follow({ after, id, message }) {
    const { last } = this.#stream;
    if (this.#stream.has(id)) {
      return; // an earlier leader had it, and the one that leads now did not
    }
    if (last === undefined || last == after) {
      this.#take({ after, id, message });
    } else if (!this.#asked) {
      this.#lack();
    }
  }

  /** We lack a step: until it comes, later ones are left alone. */
  #lack() {
    this.#asked = true;
    this.#post({ kind: "resend", tab: this.#id, after: /** @type {string} */ (this.#stream.last) });
  }

  /** @param {Entry} entry */
  #take(entry) {
    this.#asked = false;
    this.#stream.add(entry);
    if (entry.message) {
      this.#page.message(entry.message);
    }
  }

  #gap() {
    clearTimeout(this.#gapTimer);
    this.#gapTimer = 0;
    this.#page.gap();
  }

  /** A server that lost its history did so for all pages: they must not all load their state at the same moment. */
  #gapLater() {
    const { gapJitter } = this.#settings;
    if (!gapJitter) {
      this.#gap();
    } else {
      this.#gapTimer ||= setTimeout(() => this.#gap(), Math.random() * gapJitter);
    }
  }

  /**
   * @param {Status} status
   * @param {string[]} subscribed
   * @param {Map<string, string>} [refused]
   * @param {string} [error]
   */
  #update(status, subscribed, refused = new Map(), error = "") {
    this.#status = status;
    this.#error = error;
    if (this.#settled) {
      const now = new Set(subscribed);
      const lost = this.#channels.some((name) => this.#subscribed.has(name) && !now.has(name));
      this.#subscribed = new Set(this.#channels.filter((name) => now.has(name)));
      this.#refused = new Map([...refused].filter(([name]) => this.#channels.includes(name)));
      if (lost) {
        this.#gap(); // a new leader did not know of us in time
      }
    }
    this.#page.changed(status);
  }
}
