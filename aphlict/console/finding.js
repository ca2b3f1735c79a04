// A finding about the server, and the names that findings use.

import { nameOf } from "./dom.js";

/**
 * `level`: error (something does not work), warning (something did not, or soon will not), note (not a fault).
 * `manual`: where the manual says more.
 * @typedef {{level: "error" | "warning" | "note", text: string, advice: string, manual: string}} Finding
 */

/**
 * @param {Finding["level"]} level
 * @param {string} text
 * @param {string} advice
 * @param {string} manual
 * @returns {Finding}
 */
export const finding = (level, text, advice, manual) => ({ level, text, advice, manual });

/**
 * How a peer is named.
 * @param {import("./overview.js").Peer} peer
 */
export const peerName = ({ host, port }) => nameOf(`${host.includes(":") ? `[${host}]` : host}:${port}`);

/**
 * The number of connected clients.
 * @param {import("./overview.js").Figures} figures
 */
export const clientsOf = ({ connections: { websocket, sse, poll } }) => websocket + sse + poll;
