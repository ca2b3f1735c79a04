// The tables of the console: their columns and rows.

import { find, nameOf, printable, Table } from "./dom.js";
import { bytes, clock, count, dateAndTime, duration, latency, number, rate } from "./format.js";
import { peerName } from "./finding.js";

/** @typedef {import("./overview.js").Overview} Overview */

const DAY = 86_400;

/** What a state of a node is called, and its level. */
const STATES = /** @type {Record<string, [string, string]>} */ ({
  up: ["good", "reachable"],
  down: ["error", "not reachable"],
  unknown: ["note", "not contacted yet"],
  self: ["note", "this node, in the list of nodes"],
  RUNNING: ["good", "running"],
  STOPPING: ["warning", "stopping"],
  STARTING: ["warning", "starting"],
  ERROR: ["error", "failed"],
});

/** @param {string} state */
const stateOf = (state) => STATES[state] ?? ["warning", nameOf(state)];

/** @typedef {{kind: string, name: string, value: number}} CounterRow */
/** @typedef {{port: string, expires: number, left: number}} CertificateRow */
/** @typedef {{time: number, connections: number, messages: number, deliveries: number, delivery: number | null,
 *   publish: number | null, closed: number, waiting: number}} SampleRow */
/** @typedef {{name: string, state: string, note: string, queued: string, dropped: string}} NodeRow */

/**
 * This node and the others.
 * @param {Overview} overview
 * @returns {NodeRow[]}
 */
export const nodeRows = ({ state, uptime, fingerprint, peers }) => [
  {
    name: "This node",
    state,
    note: `started ${duration(uptime)} ago, ${nameOf(fingerprint)}`,
    queued: "",
    dropped: "",
  },
  ...peers
    .filter((peer) => peer.state !== "self")
    .map((peer) => ({
      name: peerName(peer),
      state: peer.state,
      note:
        peer.state === "down"
          ? `for ${duration(peer.down_for ?? 0)}: ${nameOf(peer.last_error ?? "unknown reason")}`
          : `${count(peer.sent, "message")} sent`,
      queued: number(peer.queued),
      dropped: number(peer.dropped),
    })),
];

/**
 * The counters with a name, largest first.
 * @param {Overview} overview
 */
export const counterRows = ({ limits, refused, closed }) => {
  const rows = (/** @type {Record<string, number>} */ counters, /** @type {string} */ kind) =>
    Object.entries(counters)
      .filter(([, value]) => value > 0)
      .sort((one, other) => other[1] - one[1])
      .map(([name, value]) => ({ kind, name, value }));
  return [...rows(limits, "limit reached"), ...rows(refused, "refused by"), ...rows(closed, "clients disconnected")];
};

/**
 * Make all tables.
 * @param {(query: Record<string, string>) => void} trace runs a search
 */
export const makeTables = (trace) => ({
  /** @type {Table<NodeRow>} */
  nodes: new Table(
    find("nodes-table"),
    "Nodes",
    [
      { label: "Node", text: ({ name }) => name, kind: "name" },
      { label: "State", text: ({ state }) => stateOf(state)[1], level: ({ state }) => stateOf(state)[0] },
      { label: "Details", text: ({ note }) => note, kind: "name" },
      { label: "Waiting", text: ({ queued }) => queued, kind: "number" },
      { label: "Dropped", text: ({ dropped }) => dropped, kind: "number" },
    ],
    "",
  ),
  /** @type {Table<import("./overview.js").SlowClient>} */
  slow: new Table(
    find("slow-table"),
    "Slow clients",
    [
      { label: "Connection", text: (row) => `${row.connection} (${row.transport}, ${nameOf(row.process)})` },
      { label: "Address", text: ({ address }) => nameOf(address), kind: "name" },
      {
        label: "User",
        text: ({ subject }) => (subject === null ? "" : nameOf(subject)),
        click: ({ subject }) => subject !== null && trace({ user: subject }),
        title: "Search for this user",
        kind: "name",
      },
      { label: "Instance", text: ({ instance }) => nameOf(instance), kind: "name" },
      { label: "Waiting", text: (row) => bytes(row.waiting_bytes), kind: "number" },
    ],
    "No client reads too slowly: nothing waits for any of them.",
  ),
  /** @type {Table<CounterRow>} */
  counters: new Table(
    find("counters-table"),
    "Limits reached, refused requests, and reasons of disconnections, since the start",
    [
      { label: "What", text: ({ kind }) => kind },
      { label: "Key or reason", text: ({ name }) => nameOf(name), kind: "name" },
      { label: "Times", text: ({ value }) => number(value), kind: "number" },
    ],
    "No limit was reached, nothing was refused and nobody was disconnected since the start.",
  ),
  /** @type {Table<Overview["instances"][number]>} */
  instances: new Table(
    find("instances-table"),
    "Instances with the most clients",
    [
      { label: "Instance", text: ({ instance }) => nameOf(instance), kind: "name" },
      { label: "Clients", text: ({ connections }) => number(connections), kind: "number" },
      { label: "Channels", text: ({ channels }) => number(channels), kind: "number" },
      { label: "Messages in history", text: ({ messages }) => number(messages), kind: "number" },
    ],
    "No instance is in use.",
  ),
  /** @type {Table<Overview["channels"][number]>} */
  channels: new Table(
    find("channels-table"),
    "Channels with the most subscribers",
    [
      {
        label: "Channel",
        text: ({ channel }) => nameOf(channel),
        click: ({ channel, instance }) => trace({ channel, instance }),
        title: "Search for the last messages of this channel",
        kind: "name",
      },
      { label: "Instance", text: ({ instance }) => nameOf(instance), kind: "name" },
      { label: "Subscribers", text: ({ subscribers }) => number(subscribers), kind: "number" },
    ],
    "Nobody has subscribed to a channel.",
  ),
  /** @type {Table<import("./overview.js").Process>} */
  processes: new Table(
    find("processes-table"),
    "Processes",
    [
      { label: "Process", text: ({ name, pid }) => `${nameOf(name)} (${pid})`, kind: "name" },
      { label: "Clients", text: ({ connections }) => number(connections), kind: "number" },
      { label: "Memory", text: ({ memory }) => bytes(memory), kind: "number" },
      {
        label: "Delay of the event loop",
        text: ({ lag }) => latency(lag),
        kind: "number",
        level: ({ lag }) => (lag >= 0.25 ? "warning" : ""),
      },
    ],
    "No process responded.",
  ),
  /** @type {Table<CertificateRow>} */
  certificates: new Table(
    find("certificates-table"),
    "Certificates",
    [
      { label: "Certificate of", text: ({ port }) => nameOf(port), kind: "name" },
      {
        label: "Valid until",
        text: ({ expires, left }) => `${dateAndTime(expires)}, ${left < 0 ? "expired" : `${duration(left)} left`}`,
        level: ({ left }) => (left <= 0 ? "error" : left < 14 * DAY ? "warning" : "good"),
      },
    ],
    "No port uses TLS.",
  ),
  /** @type {Table<import("./overview.js").LogEvent>} */
  log: new Table(
    find("log-table"),
    "Log, newest first",
    [
      { label: "Time", text: ({ time }) => dateAndTime(time) },
      { label: "Level", text: ({ level }) => nameOf(level), level: ({ level }) => (level === "info" ? "" : level) },
      { label: "Event", text: ({ event }) => nameOf(event), kind: "name" },
      { label: "Process", text: ({ process }) => nameOf(process) },
      { label: "Line", text: ({ message }) => printable(message), kind: "name" },
    ],
    "No such lines.",
  ),
  /** @type {Table<SampleRow>} */
  samples: new Table(
    find("samples-table"),
    "Samples of the last five minutes, newest first",
    [
      { label: "Time", text: ({ time }) => clock(time) },
      { label: "Clients", text: (row) => number(row.connections), kind: "number" },
      { label: "Messages/s", text: (row) => rate(row.messages), kind: "number" },
      { label: "Deliveries/s", text: (row) => rate(row.deliveries), kind: "number" },
      {
        label: "To the last client",
        text: (row) => (row.delivery === null ? "–" : latency(row.delivery)),
        kind: "number",
      },
      { label: "Of a POST", text: (row) => (row.publish === null ? "–" : latency(row.publish)), kind: "number" },
      { label: "Disconnected/s", text: (row) => rate(row.closed), kind: "number" },
      { label: "Waiting", text: (row) => bytes(row.waiting), kind: "number" },
    ],
    "No samples yet.",
  ),
});
