// @ts-check
/** The options of a page, completed with defaults, and the URL to connect to. */

/** @typedef {import("./aphlict.js").Options} Options */
/** @typedef {import("./aphlict.js").Token} Token */
/** @typedef {Required<Omit<Options, "instance" | "token">> & { base: string, token?: Token }} Settings */

/** @type {Omit<Settings, "base" | "token">} */
const DEFAULTS = {
  sharedConnection: true,
  pingInterval: 15_000,
  minReconnectDelay: 1_000,
  maxReconnectDelay: 60_000,
  maxRestartDelay: 2_000,
  connectTimeout: 10_000,
  webSocketRetryInterval: 600_000,
  leaderCheckInterval: 5_000,
  gapJitter: 10_000,
};

/**
 * @param {string | URL} url
 * @param {Options} [options]
 * @returns {Settings} with the URL in `base`, which ends in a slash
 */
export function createSettings(url, { instance, token, ...options } = {}) {
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
