// The overview of the node: what `GET /overview` returns, and when it is requested.

/**
 * @typedef {{host: string, port: number, protocol: string, state: string, fingerprint: string | null, queued: number,
 *   sent: number, posts: number, dropped: number, last_error: string | null, last_error_code: string | null,
 *   down_for: number | null}} Peer
 * @typedef {{name: string, pid: number, connections: number, memory: number, lag: number}} Process
 * @typedef {{connections: {websocket: number, sse: number, poll: number}, connections_limit: number,
 *   publisher_connections: number, subscriptions: number, waiting_bytes: number, waiting_clients: number,
 *   queued_deliveries: number, history_messages: number, history_bytes: number, memory: number,
 *   descriptors_used_ratio: number, messages: number, deliveries: number, duplicates: number, recovered: number,
 *   gap: number, lost: number}} Figures
 * @typedef {{interval: number, time: number, connections: number[], messages: number[], deliveries: number[],
 *   delivery_time: (number | null)[], publish_time: (number | null)[], closed: number[],
 *   waiting_bytes: number[]}} Series
 * @typedef {{process: string, connection: number, address: string, subject: string | null, transport: string,
 *   waiting_bytes: number, instance: string}} SlowClient
 * @typedef {{time: number, level: string, event: string, process: string, message: string}} LogEvent
 * @typedef {{time: number, version: string, fingerprint: string, state: string, uptime: number,
 *   processes: Process[], processes_expected: number, peers: Peer[], figures: Figures, series: Series,
 *   slow_clients: SlowClient[], closed: Record<string, number>, limits: Record<string, number>,
 *   refused: Record<string, number>,
 *   instances: {instance: string, connections: number, channels: number, messages: number}[],
 *   channels: {instance: string, channel: string, subscribers: number}[],
 *   certificates: {port: string, expires: number}[], events: LogEvent[]}} Overview
 */

const INTERVAL = 2_000; // ms between two requests
const TIMEOUT = 10_000; // ms
const BASE = location.origin + location.pathname; // without a user name, which fetch() does not accept in URLs

/** A request that failed: the sentence of the server, or that of the browser. */
export class RequestFailed extends Error {
  /**
   * @param {string} sentence
   * @param {number} status of HTTP, or 0 without a response
   */
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/**
 * Send a request and return the JSON of the response. Raises RequestFailed.
 * @param {string} url relative to that of the page
 * @param {RequestInit} options
 * @param {AbortSignal} [abort]
 * @returns {Promise<any>}
 */
export const request = async (url, options = {}, abort) => {
  const timeout = AbortSignal.timeout(TIMEOUT);
  const signal = abort ? AbortSignal.any([abort, timeout]) : timeout;
  /** @type {Response} */
  let response;
  let answer;
  try {
    // With this field, the server refuses without letting the browser ask for the secret.
    const headers = { "X-Requested-With": "fetch", ...options.headers };
    response = await fetch(new URL(url, BASE), { cache: "no-store", signal, ...options, headers });
    answer = await response.text();
  } catch {
    throw new RequestFailed(
      timeout.aborted ? `no response within ${TIMEOUT / 1000} s` : "no connection to the server",
      0,
    );
  }
  try {
    const value = JSON.parse(answer);
    if (response.ok) {
      return value;
    }
    answer = value.code ? `${value.error} [${value.code}]` : answer;
  } catch {
    answer = `${response.statusText || "not JSON"}`;
  }
  throw new RequestFailed(answer, response.status);
};

/** Requests the overview again and again, while the page is visible. */
export class Poller {
  /**
   * @param {(overview: Overview) => void} onOverview
   * @param {(error: RequestFailed) => void} onFailure
   */
  constructor(onOverview, onFailure) {
    this._onOverview = onOverview;
    this._onFailure = onFailure;
    this._timer = 0;
    this._isRequesting = false;
    document.addEventListener("visibilitychange", () => this.poll());
  }

  /** Request it now, and then every two seconds. */
  async poll() {
    clearTimeout(this._timer);
    if (document.hidden || this._isRequesting) {
      return;
    }
    this._isRequesting = true;
    let isRefused = false;
    try {
      this._onOverview(await request("overview"));
    } catch (error) {
      if (!(error instanceof RequestFailed)) {
        throw error;
      }
      isRefused = error.status === 401; // until the page is loaded again
      this._onFailure(error);
    } finally {
      this._isRequesting = false;
      if (!document.hidden && !isRefused) {
        this._timer = setTimeout(() => this.poll(), INTERVAL);
      }
    }
  }
}
