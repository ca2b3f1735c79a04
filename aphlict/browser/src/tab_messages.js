// @ts-check
/** What the tabs of an origin tell each other over their BroadcastChannel. */

/** @typedef {import("./options.js").Status} Status */
/** @typedef {import("./message_log.js").Entry} Entry */

/**
 * From any tab: `want` (these are my channels), `bye`, `ask` (does the leader live? where
 * `poke`, also: does its connection?) and `resend` (I lack what came after). From the leader, with its term: `state`
 * (where `greet`: a new leader wants to know what all want), `entry` (the next step) and `gap`; `to` names one tab.
 *
 * @typedef {{ kind: "want", tab: string, channels: string[] }} Want
 * @typedef {{ kind: "bye", tab: string }} Bye
 * @typedef {{ kind: "ask", poke: boolean }} Ask
 * @typedef {{ kind: "resend", tab: string, after: string }} Resend
 * @typedef {{ status: Status, subscribed: string[], refused: Map<string, string>, error?: string,
 *   last?: string, greet?: boolean }} State
 * @typedef {{ kind: "state", term: number, to?: undefined } & State} StateNote
 * @typedef {{ kind: "entry", term: number, to?: string } & Entry} EntryNote
 * @typedef {{ kind: "gap", term: number, to?: string, last?: string }} GapNote
 * @typedef {StateNote | EntryNote | GapNote} FromLeader
 * @typedef {Want | Bye | Ask | Resend | FromLeader} Note
 */

/** The form of the notes: tabs of which the script has another are among themselves. */
export const NOTES = 1;
