// What has happened lately, according to two overviews.

import { nameOf } from "./dom.js";
import { finding, peerName } from "./finding.js";
import { clock, count, duration } from "./format.js";

/** @typedef {import("./overview.js").Overview} Overview */

const SPAN = 300; // seconds

// Limits that foreign or idle clients reach every day, and checks that they do not pass: nobody has to act on them.
const ORDINARY_LIMITS = new Set(["ping.timeout", "limits.idle", "limits.handshake", "limits.request_head"]);
const ORDINARY_CHECKS = new Set(["origins", "auth.keys", "ssl.records"]);
const OF_SLOW_CLIENTS = "limits.send_buffer"; // and those that begin so

/** @param {number} number */
const times = (number) => (number === 1 ? "once" : count(number, "time"));

/**
 * The entries of a table of counters that have grown.
 * @param {Record<string, number>} now
 * @param {Record<string, number>} before
 * @returns {[string, number][]}
 */
const grown = (now, before) =>
  Object.entries(now)
    .map(([name, value]) => /** @type {[string, number]} */ ([name, value - (before[name] ?? 0)]))
    .filter(([, growth]) => growth > 0);

/**
 * @param {Overview} now
 * @param {Overview} before
 * @param {string} span
 */
function* ofMessages(now, before, span) {
  for (const [index, peer] of now.peers.entries()) {
    const dropped = peer.dropped - (before.peers[index]?.dropped ?? peer.dropped);
    if (dropped > 0) {
      const were = count(dropped, "message was", "messages were");
      yield finding(
        "warning",
        `${were} dropped that node ${peerName(peer)} should have received, ${span}.`,
        "Its clients missed them, and have to load their state again. See the log for the reason.",
        "docs/monitoring.md, AphlictPeerMessagesDropped",
      );
    }
  }
  const lost = now.figures.lost - before.figures.lost;
  if (lost > 0) {
    yield finding(
      "warning",
      `${count(lost, "message")} of other nodes never arrived here, ${span}.`,
      "The clients were disconnected and resumed; their pages load their state again. See the log for the node.",
      "docs/monitoring.md, AphlictMessagesLost",
    );
  }
  const gap = now.figures.gap - before.figures.gap;
  if (gap > 0) {
    yield finding(
      "warning",
      `${count(gap, "client")} may have missed messages when they resumed, ${span}.`,
      "They were away for longer than the history lasts, or a server was restarted. Their pages load their state again.",
      "docs/monitoring.md, AphlictGaps",
    );
  }
}

/**
 * @param {Overview} now
 * @param {Overview} before
 * @param {string} span
 */
function* ofClients(now, before, span) {
  for (const [reason, growth] of grown(now.closed, before.closed)) {
    const were = count(growth, "client was", "clients were");
    if (reason === "slow") {
      yield finding(
        "warning",
        `${were} disconnected for reading too slowly (${OF_SLOW_CLIENTS}), ${span}.`,
        "They resume by themselves. If it is always the same one, look at its network. See slow clients below.",
        "docs/monitoring.md, AphlictSlowClients",
      );
    } else if (reason === "error") {
      yield finding(
        "note",
        `${were} disconnected after an error, ${span}.`,
        "A client that violates the protocol, or an internal error: see the log.",
        "docs/monitoring.md, Reasons",
      );
    }
  }
  for (const [key, growth] of grown(now.limits, before.limits)) {
    if (!ORDINARY_LIMITS.has(key) && !key.startsWith(OF_SLOW_CLIENTS)) {
      yield finding(
        "warning",
        `${nameOf(key)} was reached ${times(growth)}, ${span}.`,
        "The log below has the addresses. Raise the limit if these clients or publishers are yours.",
        "docs/operations.md, Limits in the log",
      );
    }
  }
  for (const [check, growth] of grown(now.refused, before.refused)) {
    const isOfPublishers = check.startsWith("admin") || check === "ssl.ca";
    yield finding(
      ORDINARY_CHECKS.has(check) ? "note" : "warning",
      `${nameOf(check)} refused ${count(growth, "request")}, ${span}.`,
      isOfPublishers
        ? "If your publisher sent them, its messages were not published. The log below has the addresses."
        : "The log below has the addresses. If these clients are not yours, nothing has to be done.",
      "docs/operations.md, Log lines: refused",
    );
  }
}

/** @param {Overview} now */
function* ofLog({ events, time }) {
  const errors = events.filter((event) => event.level === "error" && event.time > time - SPAN);
  const last = errors.at(-1);
  if (last) {
    yield finding(
      "warning",
      `${count(errors.length, "error")} in the log in the last 5 minutes, at ${clock(last.time)}: ${nameOf(last.message)}`,
      "See the log below.",
      `docs/operations.md, Log lines: ${nameOf(last.event)}`,
    );
  }
}

/**
 * Find what has happened between two overviews of the same start of the server.
 * @param {Overview} now
 * @param {Overview} before
 */
export function* findIncidents(now, before) {
  const seconds = now.time - before.time;
  const span = seconds >= 0.8 * SPAN ? "in the last 5 minutes" : `in the last ${duration(seconds)}`;
  yield* ofMessages(now, before, span);
  yield* ofClients(now, before, span);
  yield* ofLog(now);
}
