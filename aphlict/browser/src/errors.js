// @ts-check
/** Errors by their stable code. They are plain objects, because a BroadcastChannel cannot clone subclasses of Error. */

/** @typedef {import("./aphlict.js").ErrorDetails} ErrorDetails */

/** The server refuses the token: another one may be accepted. */
const TOKEN_CODES = ["token_missing", "token_invalid", "token_expired", "token_unavailable", "instance_forbidden"];

const TOO_MANY_REQUESTS = 429;

/** The connection failed, and trying again may help. The page receives no `error` event. */
const CONNECTION_LOST = "connection_lost";

/**
 * @param {string} code
 * @param {unknown} message
 * @param {number} [status]
 * @param {string[]} [channels]
 * @returns {ErrorDetails}
 */
export const createError = (code, message, status = 0, channels = []) => ({
  code,
  message: `${message}`,
  status,
  channels,
});

/** @param {unknown} message */
export const connectionLost = (message) => createError(CONNECTION_LOST, message);

/**
 * The error in a reply of the server. One without a code has the code that is usual for its status.
 *
 * @param {{ error?: unknown, code?: string, status?: number, channels?: string[] }} reply
 */
export function serverError({ error, code, status = 0, channels = [] }) {
  const forbidden = channels.length ? "channel_forbidden" : "instance_forbidden";
  /** @type {Record<number, string>} */
  const codes = { 400: "bad_request", 401: "token_invalid", 403: forbidden };
  return createError(code ?? codes[status] ?? "internal_error", error, status, channels);
}

/** @param {ErrorDetails} error */
export const isTokenError = (error) => TOKEN_CODES.includes(error.code);

/** @param {ErrorDetails} error */
export const isConnectionLost = (error) => error.code == CONNECTION_LOST;

/**
 * Whether the server refuses the request as it is: every transport would receive the same error.
 *
 * @param {ErrorDetails} error
 */
export const isRejected = (error) =>
  error.status >= 400 && error.status < 500 && error.status != TOO_MANY_REQUESTS && !isTokenError(error);

/** A failure of a transport. */
export class TransportError extends Error {
  /** @param {ErrorDetails} details */
  constructor(details) {
    super(details.message);
    this.details = details;
  }
}

/** @param {unknown} error that passes by itself */
export const warn = (error) => console.warn(`aphlict: ${error}`);

/** @param {ErrorDetails} error that the page has to act on */
export const report = (error) => console.error(`aphlict: ${error.message} (${error.code})`);
