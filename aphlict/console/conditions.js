// What is wrong now, according to an overview.

import { nameOf } from "./dom.js";
import { clientsOf, finding, peerName } from "./finding.js";
import { count, dateAndTime, duration, latency, number } from "./format.js";

/** @typedef {import("./overview.js").Overview} Overview */

const DAY = 86_400;
const MINUTE_SAMPLES = 12; // of the series

/** @param {Overview} now */
function* ofState({ state, processes, processes_expected: expected, uptime }) {
  if (state === "ERROR") {
    yield finding(
      "error",
      "A port accepts no more connections, or no process serves the clients.",
      "Look for errors in the log below. If none of them says what to do, restart the server.",
      "docs/monitoring.md, AphlictNotReady",
    );
  } else if (state !== "RUNNING") {
    yield finding(
      "warning",
      `The server is not running normally: its state is ${nameOf(state)}.`,
      "While it stops, clients are disconnected, and connect to other nodes. Start it again if nobody is doing that.",
      "docs/operations.md, Processes and signals",
    );
  }
  if (processes.length < expected) {
    const silent = count(expected - processes.length, "process", "processes");
    yield finding(
      "error",
      `${silent} of ${expected} did not respond. The figures below are without their clients.`,
      "A process that has exited is replaced within seconds. If this lasts for a minute, look at the log below.",
      "docs/monitoring.md, AphlictProcessesMissing",
    );
  }
  if (uptime < 300) {
    yield finding(
      "note",
      `The server was started ${duration(uptime)} ago.`,
      "All counters began again then. Clients that resumed may have missed messages.",
      "docs/reliability.md",
    );
  }
}

/** @param {Overview} now */
function* ofPeers({ peers }) {
  for (const peer of peers) {
    const name = peerName(peer);
    if (peer.state === "down") {
      const since = peer.down_for === null ? "" : ` for ${duration(peer.down_for)}`;
      const waiting = peer.queued ? ` ${count(peer.queued, "message waits", "messages wait")} for it.` : "";
      yield finding(
        "error",
        `Node ${name} has not been reachable${since}: ${nameOf(peer.last_error ?? "unknown reason")}.${waiting}`,
        "Its clients do not receive what is published here, until it is back. Check that it runs, and that this " +
          "machine reaches its admin port. Messages for it are kept for about a minute.",
        "docs/monitoring.md, AphlictPeerDown",
      );
    } else if (peer.state === "unknown") {
      const manual = "docs/cluster.md, Peers in the status";
      yield finding("note", `Node ${name} was not contacted yet.`, "Wait a few seconds.", manual);
    }
  }
}

/** @param {Overview} now */
function* ofResources({ figures, processes }) {
  const limit = figures.connections_limit;
  const used = limit ? clientsOf(figures) / limit : 0;
  if (used >= 0.9) {
    yield finding(
      used >= 1 ? "error" : "warning",
      `${Math.floor(used * 100)} % of the connections that are possible are in use (limit: ${number(limit)}).`,
      "New clients are rejected at the limit. Raise limits.connections or the limit of descriptors, or add a node.",
      "docs/monitoring.md, AphlictConnectionsFull",
    );
  }
  if (figures.descriptors_used_ratio >= 0.8) {
    yield finding(
      figures.descriptors_used_ratio >= 0.95 ? "error" : "warning",
      `A process has opened ${Math.floor(figures.descriptors_used_ratio * 100)} % of its file descriptors.`,
      "Without descriptors the server accepts no connection. Raise LimitNOFILE, and restart.",
      "docs/monitoring.md, AphlictDescriptors",
    );
  }
  for (const { name, pid, lag } of processes) {
    if (lag >= 0.25) {
      yield finding(
        "warning",
        `The process ${nameOf(name)} (${pid}) is overloaded: its event loop is ${latency(lag)} late.`,
        "All its clients wait for so long. Check the processor, swapping, and what else runs on the machine.",
        "docs/monitoring.md, AphlictEventLoopLag",
      );
    }
  }
}

/** @param {Overview} now */
function* ofCertificates({ certificates, time }) {
  for (const { port, expires } of certificates) {
    if (expires - time < 14 * DAY) {
      const [level, what, then] =
        expires <= time
          ? /** @type {const} */ (["error", "has expired", "Browsers reject it."])
          : /** @type {const} */ (["warning", "expires", "Browsers will reject it then."]);
      yield finding(
        level,
        `The certificate of port ${nameOf(port)} ${what} on ${dateAndTime(expires)}.`,
        `${then} Renew it, and send SIGHUP to the server.`,
        "docs/monitoring.md, AphlictCertificateExpires",
      );
    }
  }
}

/** @param {Overview} now */
function* ofTraffic({ figures, series }) {
  const known = series.delivery_time.slice(-MINUTE_SAMPLES).filter((value) => value !== null);
  const slowest = Math.max(0, ...known);
  if (slowest >= 0.5) {
    yield finding(
      "warning",
      `Messages take up to ${latency(slowest)} from the publisher to the last client.`,
      "The server has too much work, or many clients for one message. Check the processor.",
      "docs/performance.md",
    );
  }
  if (clientsOf(figures) === 0) {
    yield finding(
      "note",
      "No clients are connected.",
      "If there should be some: check the proxy, and open a page. bin/aphlict doctor --url … tests the way.",
      "docs/troubleshooting.md, The page shows “Disconnected”",
    );
  }
  if (series.messages.length >= 60 && series.messages.every((value) => value === 0)) {
    yield finding(
      "note",
      "No message was published in the last 5 minutes.",
      "If there should be some: check the publisher, and send a test message below.",
      "docs/troubleshooting.md, Connects, but nothing arrives",
    );
  }
}

/**
 * Find what is wrong now.
 * @param {Overview} now
 */
export function* findConditions(now) {
  yield* ofState(now);
  yield* ofPeers(now);
  yield* ofResources(now);
  yield* ofCertificates(now);
  yield* ofTraffic(now);
}
