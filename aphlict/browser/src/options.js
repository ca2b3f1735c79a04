// @ts-check
/** The options of a page, and the address that they come to. */

/** @typedef {"connecting" | "open" | "fallback" | "unauthorized" | "closed"} Status */

/**
 * A published object as the server sends it: `subscribers` holds those of its channels that were subscribed.
 *
 * @typedef {{ uniqueID: string, subscribers: string[], [key: string]: any }} Message
 */

/**
 * Times are in milliseconds.
 *
 * @typedef {object} Options
 * @property {string} [instance] of a server that serves several; the default is what the URL says
 * @property {boolean} [share] one connection for all tabs (the default), or one for this tab alone
 * @property {number} [keepAlive] how often the server is asked for a sign of life (15,000)
 * @property {number} [minDelay] the longest first wait before connecting again; it doubles each time (1,000)
 * @property {number} [maxDelay] the longest wait of all (60,000)
 * @property {number} [restartDelay] the longest wait after a server said that it restarts (2,000)
 * @property {number} [timeout] how long an attempt to connect may take (10,000)
 * @property {number} [upgradeAfter] when a fallback tries WebSocket again (600,000)
 * @property {Token} [token] where the server asks for one; a function is called for another in time. The default is
 *   `?token=` of the URL
 * @property {number} [gapJitter] the longest wait, by chance, before a `gap` that a server caused (10,000)
 * @property {number} [patience] how often the tabs ask whether the one that is connected is alive (5,000)
 */

/** @typedef {string | (() => string | Promise<string>)} Token */

/** @typedef {Required<Omit<Options, "instance" | "token">> & { base: string, token?: Token }} Settings */

/** @type {Omit<Settings, "base" | "token">} */
const DEFAULTS = {
  share: true,
  keepAlive: 15_000,
  minDelay: 1_000,
  maxDelay: 60_000,
  restartDelay: 2_000,
  timeout: 10_000,
  upgradeAfter: 600_000,
  patience: 5_000,
  gapJitter: 10_000,
};

/**
 * @param {string | URL} url
 * @param {Options} [options]
 * @returns {Settings}
 */
export function settle(url, { instance, token, ...options } = {}) {
  const base = new URL(url, location.href);
  token ??= base.searchParams.get("token") ?? undefined;
  base.protocol = base.protocol.replace("http", "ws");
  base.hash = base.search = "";
  if (!base.pathname.endsWith("/")) {
    base.pathname += "/";
  }
  if (instance !== undefined) {
    base.pathname = base.pathname.split("~")[0] + `~${encodeURIComponent(instance).replaceAll("~", "%7E")}/`;
  }
  return { ...DEFAULTS, ...options, token, base: base.href };
}
