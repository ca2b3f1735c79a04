// @ts-check
/** The messages that the tabs of an origin exchange over their BroadcastChannel. */

/** @typedef {import("./aphlict.js").ErrorDetails} ErrorDetails */
/** @typedef {import("./aphlict.js").State} State */
/** @typedef {import("./message_log.js").Entry} Entry */
/** @typedef {import("./message_log.js").Place} Place */

/**
 * The state of the connection. `error` is the last error of the server, or null after a success.
 *
 * @typedef {object} ConnectionState
 * @property {State} state
 * @property {string[]} subscribed
 * @property {import("./transport.js").Refused} refused
 * @property {ErrorDetails | null} error
 */

/**
 * From any tab: `channels` (the channels of this tab), `bye` (the tab leaves), `probe` (asks the leader for its state;
 * with `connection`, also to probe its connection) and `resend` (asks the leader for the messages after one).
 *
 * @typedef {{ kind: "channels", tab: string, channels: string[] }} ChannelsMessage
 * @typedef {{ kind: "bye", tab: string }} ByeMessage
 * @typedef {{ kind: "probe", connection: boolean }} ProbeMessage
 * @typedef {{ kind: "resend", tab: string, after: string | undefined }} ResendMessage
 */

/**
 * From the leader, with its term, which grows with each election: `state` (with `isNew`, the leader also asks all tabs
 * for their channels), `entry` (a message) and `gap`. `to` names the only recipient.
 *
 * @typedef {{ kind: "state", term: number, to?: undefined, place?: Place, isNew?: boolean } & ConnectionState
 *   } StateMessage
 * @typedef {{ kind: "entry", term: number, to?: string } & Entry} EntryMessage
 * @typedef {{ kind: "gap", term: number, to?: string, place: Place }} GapMessage
 * @typedef {StateMessage | EntryMessage | GapMessage} LeaderMessage
 * @typedef {ChannelsMessage | ByeMessage | ProbeMessage | ResendMessage | LeaderMessage} TabMessage
 */

/** The version of these messages. Tabs whose scripts differ in it do not share a connection. */
export const TAB_PROTOCOL = 2;
