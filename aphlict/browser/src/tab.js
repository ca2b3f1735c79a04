// @ts-check
/**
 * One tab among those of its origin that use the same server. The leader holds the connection, and sends all that it
 * receives to the other tabs over a BroadcastChannel: a sequence of messages, each of which names the one before. A tab
 * that misses a message requests it again. So every tab has each message once and in order. The state that the leader
 * sends contains the place to resume from, so that any tab can become the leader and resume where the last one stopped.
 */

import { Connection } from "./connection.js";
import { Election } from "./election.js";
import { MessageLog } from "./message_log.js";
import { TabState } from "./tab_state.js";
import { TAB_PROTOCOL } from "./tab_messages.js";

/** @typedef {import("./aphlict.js").Message} Message */
/** @typedef {import("./message_log.js").Entry} Entry */
/** @typedef {import("./tab_messages.js").ConnectionState} ConnectionState */
/** @typedef {import("./tab_messages.js").LeaderMessage} LeaderMessage */
/** @typedef {import("./tab_messages.js").ResendMessage} ResendMessage */
/** @typedef {import("./tab_messages.js").StateMessage} StateMessage */
/** @typedef {import("./tab_messages.js").TabMessage} TabMessage */

const CHANNELS_TIMEOUT = 500; // ms for which a new leader waits for the channels of the other tabs

/** @returns {ConnectionState} that of a tab without a connection */
const withoutConnection = (/** @type {"connecting" | "disconnected"} */ state) => ({
  state,
  subscribed: [],
  refused: new Map(),
  error: null,
});

export class Tab {
  #settings;
  #page;
  #name;
  #state;
  #election;
  #log = new MessageLog();
  /** @type {Map<string, string[]>} of the other tabs, by ID */ #otherChannels = new Map();
  #term = 0;
  /** @type {Connection | undefined} of the leader */ #connection;
  /** @type {BroadcastChannel | undefined} */ #broadcast;
  #pageListeners = new AbortController();
  #isAnnouncing = false; // the channels of this tab are about to be sent
  #isResending = false; // messages were requested again
  #isTokenRefused = false; // this tab's, or it has none

  /**
   * @param {import("./options.js").Settings} settings
   * @param {import("./tab_state.js").PageEvents} page
   */
  constructor(settings, page) {
    this.#settings = settings;
    this.#page = page;
    this.#name = `aphlict ${TAB_PROTOCOL} ${settings.base}`;
    this.#state = new TabState(settings.gapJitter, page);
    this.#election = new Election(this.#name, settings.leaderCheckInterval, settings.sharedConnection, {
      joined: () => this.#announceChannels(),
      elected: (signal) => this.#onElected(signal),
      deposed: () => this.#closeConnection(),
      silent: () => this.#post({ kind: "probe", connection: false }),
      unavailable: () => this.#closeBroadcast(),
    });
    this.#join();
  }

  get state() {
    return this.#state.state;
  }

  /** @param {string[]} channels */
  setChannels(channels) {
    this.#state.setChannels(channels);
    if (!this.#isAnnouncing) {
      this.#isAnnouncing = true;
      queueMicrotask(() => this.#announceChannels());
    }
  }

  /** @param {string[]} channels */
  isSubscribed(channels) {
    return this.#state.isSubscribed(channels);
  }

  /** @param {string[]} channels */
  errorOf(channels) {
    return this.#state.errorOf(channels);
  }

  /** @param {import("./aphlict.js").Token | undefined} token */
  setToken(token) {
    this.#settings.token = token;
    this.#isTokenRefused = false;
    if (this.#connection) {
      this.#connection.setToken(token);
    } else if (this.state == "unauthorized") {
      this.#stealLeadership();
    }
  }

  connect() {
    if (this.state == "disconnected") {
      this.#rejoin();
    } else {
      this.#probe();
    }
  }

  disconnect() {
    this.#state.cancelGap();
    this.#leave("disconnected");
    this.#pageListeners.abort();
  }

  // The tab joins the others, and leaves them

  #join() {
    this.#listenToPage();
    if (this.#election.isShared) {
      this.#isAnnouncing = true; // not before the lock of this tab: a leader would take it for gone
      this.#broadcast = new BroadcastChannel(this.#name);
      this.#broadcast.onmessage = (event) => this.#onTabMessage(event.data);
    }
    this.#election.join();
  }

  #listenToPage() {
    this.#pageListeners.abort();
    this.#pageListeners = new AbortController();
    const { signal } = this.#pageListeners;
    /** @type {(name: string, listener: (event: any) => void, target?: EventTarget) => void} */
    const on = (name, listener, target = globalThis) => target.addEventListener(name, listener, { signal });
    on("online", () => this.#connection?.onNetworkChange());
    on("pagehide", () => this.#leave("connecting"));
    on("pageshow", (event) => event.persisted && this.#rejoin()); // from the back/forward cache
    const { document } = globalThis; // undefined in a worker
    if (document) {
      on("visibilitychange", () => document.hidden || this.#probe(), document);
      on("freeze", () => this.#election.withdraw(), document);
      on("resume", () => this.#election.compete(), document);
    }
  }

  /** @param {"connecting" | "disconnected"} state */
  #leave(state) {
    this.#post({ kind: "bye", tab: this.#election.id });
    this.#election.leave();
    this.#closeBroadcast();
    this.#state.update(withoutConnection(state));
  }

  /** The tabs may have given up this tab's channels meanwhile. */
  #rejoin() {
    if (this.#election.isShared) {
      this.#log = new MessageLog();
      this.#otherChannels.clear();
      this.#state.gapWhenSubscribed();
    }
    this.#state.update(withoutConnection("connecting"));
    this.#join();
  }

  /** No tab is reachable without the channel; the channels of this one can be sent from now on. */
  #closeBroadcast() {
    this.#broadcast?.close();
    this.#broadcast = undefined;
    this.#isAnnouncing = false;
  }

  /** The token of the leader is refused, and this tab may have a valid one. */
  #stealLeadership() {
    this.#state.update(withoutConnection("connecting"));
    this.#election.compete(true);
  }

  #probe() {
    this.#connection ? this.#connection.probe() : this.#post({ kind: "probe", connection: true });
  }

  // The leader

  /** @param {AbortSignal} signal */
  async #onElected(signal) {
    this.#term = Math.max(Date.now(), this.#term + 1);
    this.#log.place.last ??= `${this.#term}`; // so that another tab notices if it misses the first message
    if (this.#election.isShared) {
      await this.#collectChannels();
    }
    if (!signal.aborted) {
      this.#connection = new Connection(this.#settings, {
        resumeAfter: () => this.#log.resumeAfter(),
        message: (message) => this.#append(message),
        position: (position) => this.#log.setPosition(position),
        gap: () => {
          this.#broadcastGap();
          this.#state.gapLater();
        },
        changed: () => this.#broadcastState(),
      });
      this.#subscribeAll();
    }
  }

  #closeConnection() {
    this.#connection?.close();
    this.#connection = undefined;
  }

  /** A connection resumes on the channels of its first subscription: these must be all channels of all tabs. */
  async #collectChannels() {
    const tabs = await this.#election.findTabs();
    for (const tab of this.#otherChannels.keys()) {
      tabs.includes(tab) ? this.#watch(tab) : this.#otherChannels.delete(tab);
    }
    this.#post({ kind: "state", term: this.#term, ...withoutConnection("connecting"), isNew: true });
    const deadline = Date.now() + CHANNELS_TIMEOUT;
    const isMissing = (/** @type {string} */ tab) => tab != this.#election.id && !this.#otherChannels.has(tab);
    while (tabs.some(isMissing) && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, CHANNELS_TIMEOUT / 20));
    }
  }

  /** @param {string} tab */
  #watch(tab) {
    this.#election.watch(tab, () => this.#removeTab(tab));
  }

  /** @param {string} tab */
  #removeTab(tab) {
    this.#otherChannels.delete(tab);
    this.#subscribeAll();
  }

  #subscribeAll() {
    this.#connection?.setChannels([...new Set([this.#state.channels, ...this.#otherChannels.values()].flat())]);
  }

  /** @param {Message} message */
  #append(message) {
    if (!this.#log.has(message.uniqueID)) {
      const entry = { after: this.#log.place.last, message };
      this.#post({ kind: "entry", term: this.#term, ...entry });
      this.#accept(entry);
    }
  }

  #broadcastState() {
    if (this.#election.isLeader) {
      const { state, subscribed, refused, error } = this.#connection ?? withoutConnection("connecting");
      const current = { state, subscribed, refused, error };
      this.#post({ kind: "state", term: this.#term, ...current, place: this.#log.place });
      this.#isTokenRefused ||= state == "unauthorized";
      this.#state.update(current);
    }
  }

  /** @param {string} [to] */
  #broadcastGap(to) {
    this.#post({ kind: "gap", term: this.#term, to, place: this.#log.place });
  }

  /** @param {ResendMessage} request */
  #resend({ tab, after }) {
    if (this.#connection && this.#state.isConnected) {
      const entries = this.#log.since(after);
      entries?.forEach((entry) => this.#post({ kind: "entry", term: this.#term, to: tab, ...entry }));
      entries ? this.#broadcastState() : this.#broadcastGap(tab);
    }
  }

  // Messages between tabs

  #announceChannels() {
    this.#isAnnouncing = false;
    this.#post({ kind: "channels", tab: this.#election.id, channels: this.#state.channels });
    this.#subscribeAll();
    this.#broadcastState(); // the channels may be those of another tab, which are in force
  }

  /** @param {TabMessage} message */
  #post(message) {
    this.#broadcast?.postMessage(message);
  }

  /** @param {TabMessage} message */
  #onTabMessage(message) {
    if ("term" in message) {
      this.#onLeaderMessage(message);
    } else if (message.kind == "channels") {
      const isKnown = this.#otherChannels.has(message.tab);
      this.#otherChannels.set(message.tab, message.channels);
      if (this.#election.isLeader && !isKnown) {
        this.#watch(message.tab);
      }
      this.#subscribeAll();
      this.#broadcastState();
    } else if (message.kind == "bye") {
      this.#removeTab(message.tab);
    } else if (message.kind == "resend") {
      this.#resend(message);
    } else {
      message.connection && this.#connection?.probe();
      this.#broadcastState();
    }
  }

  /** @param {LeaderMessage} message */
  #onLeaderMessage(message) {
    if (message.term > this.#term) {
      this.#term = message.term;
      this.#isResending = false;
      this.#election.resign(); // another tab has stolen the lock
    }
    if (message.term == this.#term && (!message.to || message.to == this.#election.id)) {
      this.#election.onLeaderSeen();
      if (message.kind == "entry") {
        this.#onEntry(message);
      } else if (message.kind == "gap") {
        this.#log.place = message.place;
        this.#isResending = false;
        this.#state.gapLater();
      } else {
        this.#onLeaderState(message);
      }
    }
  }

  /** @param {StateMessage} message */
  #onLeaderState({ state, subscribed, refused, error, place, isNew }) {
    const { last } = this.#log.place;
    if (place && (last === undefined || last == place.last)) {
      this.#log.place = place;
    }
    if (isNew) {
      this.#announceChannels();
    }
    this.#state.update({ state, subscribed, refused, error });
    if (state == "unauthorized" && this.#settings.token && !this.#isTokenRefused) {
      this.#stealLeadership();
    } else if (this.#state.isConnected && place && !this.#isAt(place.last)) {
      this.#requestResend();
    }
  }

  /** @param {Entry} entry */
  #onEntry({ after, message }) {
    if (this.#log.has(message.uniqueID)) {
      return; // from an earlier leader; the new one did not have it
    }
    if (this.#log.place.last === undefined || this.#isAt(after)) {
      this.#accept({ after, message });
    } else if (!this.#isResending) {
      this.#requestResend();
    }
  }

  /**
   * Whether this tab has all messages up to one of the leader. That need not be the last one here: an earlier leader may
   * have received them from another node, in another order.
   *
   * @param {string | undefined} id
   */
  #isAt(id) {
    return id == this.#log.place.last || this.#log.has(id);
  }

  /** Requests the messages after the last one. Until they come, later ones are ignored. */
  #requestResend() {
    this.#isResending = true;
    this.#post({ kind: "resend", tab: this.#election.id, after: this.#log.place.last });
  }

  /** @param {Entry} entry */
  #accept(entry) {
    this.#isResending = false;
    this.#log.add(entry);
    this.#page.message(entry.message);
  }
}
