// @ts-check
/**
 * What the ways to the server have in common. Each is made by the link, reports to a `Sink`, and has the shape of
 * `Transport`: it resumes after what the sink has, and once closed it reports nothing more.
 */

/** @typedef {import("./options.js").Message} Message */

/** @typedef {Map<string, string>} Refused the channels that the server refused, each with its sentence */

/**
 * @typedef {object} Sink
 * @property {() => string[]} after the uniqueIDs to resume after, oldest first
 * @property {(channels: string[], refused: Refused) => void} open everything up to now is here; these channels are in
 *   force, and those were refused
 * @property {(message: Message) => void} message
 * @property {(last: string | undefined) => void} mark the server's history has come to `last`
 * @property {() => void} gap messages may be missing before the next one
 * @property {(reason: string, code?: number) => void} end this transport is over
 */

/**
 * @typedef {object} Transport
 * @property {(channels: string[]) => void} update listens to these channels, no others
 * @property {(changed: boolean) => void} probe ends soon if the server does not answer; the network may have changed
 * @property {() => void} authenticate shows the token again: it is another one
 * @property {() => void} close
 */

/** Why a transport ended: the token is missing, or not (or no longer) valid. The network is not to blame. */
export const UNAUTHORIZED = 4001;

/** Why a transport ended: the server refuses the request as it is. */
export const REJECTED = 4400;

export const LONGEST = 2e9; // milliseconds, 23 days: a timer can wait a little longer

/** @param {unknown} error what fails for now */
export const warn = (error) => console.warn(`aphlict: ${error}`);

/** @param {unknown} error what the page has to change */
export const report = (error) => console.error(`aphlict: ${error}`);
