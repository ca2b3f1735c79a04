// @ts-check
/** The election of the tab that holds the connection for all tabs: the leader. */

/**
 * @typedef {object} ElectionEvents
 * @property {() => void} joined the other tabs can see this one
 * @property {(signal: AbortSignal) => void} elected this tab leads until the signal
 * @property {() => void} deposed this tab does not lead any more
 * @property {() => void} silent the leader has sent nothing for a while: request its state
 * @property {() => void} unavailable the page must not use locks, and this tab leads alone
 */

const MAX_UNANSWERED = 2; // requests, before another tab takes over

/**
 * The leader holds a Web Lock that all tabs request. If it does not respond, because it is frozen, another tab steals the
 * lock. Each tab holds a second lock, with its ID in the name, which the browser releases even if the tab crashes.
 */
export class Election {
  id = "";
  /** False if this tab leads alone. */ isShared;
  #name;
  #checkInterval;
  #events;
  /** @type {AbortController | undefined} releases the leader's lock, or cancels the request for it */ #candidacy;
  /** @type {AbortController | undefined} ends the leadership of this tab */ #leadership;
  /** @type {AbortController | undefined} releases the lock of this tab */ #presence;
  #timer = 0;
  #wasSeen = false; // the leader, since the last check
  #unanswered = 0;

  /**
   * @param {string} name of the leader's lock
   * @param {number} checkInterval ms
   * @param {boolean} isShared
   * @param {ElectionEvents} events
   */
  constructor(name, checkInterval, isShared, events) {
    this.#name = name;
    this.#checkInterval = checkInterval;
    this.#events = events;
    this.isShared = isShared && !!navigator.locks;
  }

  get isLeader() {
    return !!this.#leadership;
  }

  join() {
    if (!this.isShared) {
      this.compete();
      return;
    }
    this.id = crypto.randomUUID(); // a new one, as the leader may still be about to forget the one before
    const presence = (this.#presence = new AbortController());
    const onGranted = () => {
      this.#events.joined();
      this.compete();
    };
    holdLock(this.#lockOf(this.id), presence.signal, onGranted).catch(() => presence.signal.aborted || this.#goAlone());
    this.#timer = setInterval(() => this.#check(), this.#checkInterval);
  }

  leave() {
    this.withdraw();
    this.#presence?.abort();
    clearInterval(this.#timer);
  }

  /** The browser refuses locks, as in a sandboxed frame. */
  #goAlone() {
    clearInterval(this.#timer);
    this.isShared = false;
    this.#events.unavailable();
    this.compete();
  }

  /** Requests the leadership, or takes it from the leader. */
  compete(steal = false) {
    this.withdraw();
    if (!this.isShared) {
      this.#lead();
      return;
    }
    const candidacy = (this.#candidacy = new AbortController());
    holdLock(this.#name, candidacy.signal, () => this.#lead(), steal).catch(() => {
      candidacy.signal.aborted || this.compete(); // another tab stole the lock
    });
  }

  /** Gives up the leadership, and the request for it. */
  withdraw() {
    this.#candidacy?.abort();
    this.resign();
  }

  /** Ends the leadership of this tab: another one leads. */
  resign() {
    this.#leadership?.abort();
    this.#leadership = undefined;
    this.#events.deposed();
  }

  #lead() {
    this.resign();
    this.#leadership = new AbortController();
    this.#events.elected(this.#leadership.signal);
  }

  /** The leader has sent something. */
  onLeaderSeen() {
    this.#wasSeen = true;
  }

  #check() {
    if (this.#leadership || this.#wasSeen) {
      this.#unanswered = 0;
      this.#wasSeen = false; // a response to one tab reaches all
    } else if (this.#unanswered++ < MAX_UNANSWERED) {
      this.#events.silent();
    } else {
      this.#unanswered = 0;
      this.compete(true);
    }
  }

  /** @param {string} tab */
  #lockOf(tab) {
    return `${this.#name} ${tab}`;
  }

  /** Resolves with the IDs of all tabs. */
  async findTabs() {
    const { held = [] } = await navigator.locks.query();
    const prefix = this.#lockOf("");
    return held.flatMap(({ name = "" }) => (name.startsWith(prefix) ? [name.slice(prefix.length)] : []));
  }

  /**
   * Calls `onGone` when a tab has left or crashed, for as long as this tab leads.
   *
   * @param {string} tab
   * @param {() => void} onGone
   */
  watch(tab, onGone) {
    const signal = this.#leadership?.signal;
    navigator.locks.request(this.#lockOf(tab), { signal }, onGone).catch(() => {});
  }
}

/**
 * Requests a lock, and holds it until the signal. Rejects if another tab steals it, or on a signal before it is granted.
 *
 * @param {string} name
 * @param {AbortSignal} signal
 * @param {() => void} onGranted
 * @param {boolean} [steal]
 */
function holdLock(name, signal, onGranted, steal) {
  return navigator.locks.request(
    name,
    steal ? { steal } : { signal }, // the API forbids both together
    () =>
      new Promise((release) => {
        signal.addEventListener("abort", release);
        signal.aborted ? release(null) : onGranted();
      }),
  );
}
