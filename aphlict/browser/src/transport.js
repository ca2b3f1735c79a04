// @ts-check
/** The interface of a transport: WebSocket, Server-Sent Events or polling. */

/** @typedef {import("./aphlict.js").ErrorDetails} ErrorDetails */
/** @typedef {import("./aphlict.js").Message} Message */

/** @typedef {Map<string, ErrorDetails>} Refused channels that the server refused, each with the error */

/**
 * What a transport reports to its connection. After `close()`, and after `end`, it reports nothing.
 *
 * @typedef {object} TransportEvents
 * @property {() => string[]} resumeAfter the uniqueIDs and the position to resume after
 * @property {(channels: string[], refused: Refused) => void} open everything up to now has been delivered; `channels`
 *   are in force
 * @property {(message: Message) => void} message
 * @property {(position: string) => void} position covers all messages delivered before it
 * @property {() => void} gap messages may be missing before the next one
 * @property {(error: ErrorDetails, closeCode?: number) => void} end the transport has failed
 */

/**
 * @typedef {object} Transport
 * @property {(channels: string[]) => void} setChannels replaces the channels
 * @property {(networkChanged: boolean) => void} probe ends soon if the server does not respond
 * @property {() => void} authenticate sends the token, which has changed
 * @property {() => void} close
 */

export const MAX_TIMEOUT = 2e9; // milliseconds, 23 days: setTimeout overflows soon after
