// The verdict on an overview.

import { findConditions } from "./conditions.js";
import { clientsOf } from "./finding.js";
import { count, rate } from "./format.js";
import { findIncidents } from "./incidents.js";

/** @typedef {import("./overview.js").Overview} Overview */
/** @typedef {import("./finding.js").Finding} Finding */

const LEVELS = ["error", "warning", "note"];

/**
 * Find what is wrong. `before` is an earlier overview of the same start, for what has changed since.
 * @param {Overview} now
 * @param {Overview} before
 * @returns {Finding[]} the most important ones first
 */
export const examine = (now, before) =>
  [...findConditions(now), ...findIncidents(now, before)].sort(
    (one, other) => LEVELS.indexOf(one.level) - LEVELS.indexOf(other.level),
  );

/**
 * The verdict in one sentence, and its level.
 * @param {Finding[]} findings
 * @returns {{level: "error" | "warning" | "good", text: string}}
 */
export const conclude = (findings) => {
  const errors = findings.filter(({ level }) => level === "error").length;
  const warnings = findings.filter(({ level }) => level === "warning").length;
  if (errors) {
    const more = warnings ? `, and ${count(warnings, "warning")}` : "";
    return { level: "error", text: `Something does not work: ${count(errors, "problem")}${more}` };
  }
  return warnings
    ? { level: "warning", text: `Works, with ${count(warnings, "warning")}` }
    : { level: "good", text: "Everything works" };
};

/**
 * What the node does now, in a sentence.
 * @param {Overview} overview
 */
export const summarize = ({ figures, series, peers }) => {
  const others = peers.filter(({ state }) => state !== "self");
  const up = others.filter(({ state }) => state === "up").length;
  const nodes = others.length ? ` ${up} of ${count(others.length, "other node")} reachable.` : " No other nodes.";
  const [messages, deliveries] = [series.messages, series.deliveries].map((values) => rate(values.at(-1) ?? 0));
  return `${count(clientsOf(figures), "client")}, ${messages} messages and ${deliveries} deliveries per second.${nodes}`;
};
