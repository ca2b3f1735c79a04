// The panels below the verdict: charts, figures and tables of an overview.

import { Chart } from "./chart.js";
import { find, make, setText } from "./dom.js";
import { bytes, count, latency, number, rate } from "./format.js";
import { counterRows, makeTables, nodeRows } from "./tables.js";

/** @typedef {import("./overview.js").Overview} Overview */

const LEVELS = ["debug", "info", "warning", "error"];

/** @returns {[string, (overview: Overview) => string][]} */
const figureRows = () => [
  [
    "Clients",
    ({ figures: { connections: c } }) =>
      `${number(c.websocket)} WebSocket, ${number(c.sse)} event stream, ${number(c.poll)} poll`,
  ],
  ["Limit of clients", ({ figures }) => number(figures.connections_limit)],
  ["Subscriptions", ({ figures }) => number(figures.subscriptions)],
  ["Publishers and nodes connected", ({ figures }) => number(figures.publisher_connections)],
  ["Deliveries not written yet", ({ figures }) => number(figures.queued_deliveries)],
  ["History", ({ figures }) => `${count(figures.history_messages, "message")}, ${bytes(figures.history_bytes)}`],
  ["Memory", ({ figures }) => bytes(figures.memory)],
  ["File descriptors used", ({ figures }) => `${(figures.descriptors_used_ratio * 100).toFixed(1)} %`],
  [
    "Messages since the start",
    ({ figures }) => `${number(figures.messages)}, of which duplicates ${number(figures.duplicates)}`,
  ],
  ["Deliveries since the start", ({ figures }) => number(figures.deliveries)],
  [
    "Resumed clients",
    ({ figures }) => `${number(figures.recovered)} completely, ${number(figures.gap)} with a possible gap`,
  ],
  ["Messages of other nodes lost", ({ figures }) => number(figures.lost)],
];

/** All panels. */
export class Panels {
  /** @param {(query: Record<string, string>) => void} trace runs a search */
  constructor(trace) {
    this._charts = this._makeCharts();
    this._figures = figureRows().map(([label, text]) => {
      const value = make("dd");
      find("figures").append(make("div", {}, make("dt", {}, label), value));
      return { value, text };
    });
    /** @type {Overview | null} */
    this._overview = null;
    this._tables = makeTables(trace);
    this._level = /** @type {HTMLSelectElement} */ (find("level"));
    this._level.addEventListener("change", () => this._overview && this._showLog(this._overview));
    find("samples").addEventListener("toggle", () => this._overview && this._showSamples(this._overview));
  }

  /** @param {Overview} overview */
  update(overview) {
    this._overview = overview;
    const { series } = overview;
    for (const { chart, keys } of this._charts) {
      chart.update(
        keys.map((key) => series[key]),
        series.time,
        series.interval,
      );
    }
    this._figures.forEach(({ value, text }) => setText(value, text(overview)));
    this._tables.nodes.update(nodeRows(overview));
    this._tables.slow.update(overview.slow_clients);
    this._tables.counters.update(counterRows(overview));
    this._tables.instances.update(overview.instances);
    this._tables.channels.update(overview.channels);
    this._tables.processes.update(overview.processes);
    this._tables.certificates.update(
      overview.certificates.map((each) => ({ ...each, left: each.expires - overview.time })),
    );
    this._showLog(overview);
    this._showSamples(overview);
  }

  _makeCharts() {
    /** @type {[string, string[], Exclude<keyof import("./overview.js").Series, "interval" | "time">[], (value: number) => string][]} */
    const charts = [
      ["Clients", [""], ["connections"], rate],
      ["Messages per second", [""], ["messages"], rate],
      ["Deliveries per second", [""], ["deliveries"], rate],
      ["Latency", ["to the last client", "of a POST"], ["delivery_time", "publish_time"], latency],
      ["Disconnected per second", [""], ["closed"], rate],
      ["Waiting for slow clients", [""], ["waiting_bytes"], bytes],
    ];
    return charts.map(([title, names, keys, format]) => {
      const figure = make("figure");
      find("charts").append(figure);
      return { chart: new Chart(figure, title, names, format, format === bytes ? 1024 : 1000), keys };
    });
  }

  /** @param {Overview} overview */
  _showLog({ events }) {
    const least = LEVELS.indexOf(this._level.value);
    this._tables.log.update(events.filter(({ level }) => LEVELS.indexOf(level) >= least).reverse());
  }

  /** @param {Overview} overview */
  _showSamples({ series }) {
    if (/** @type {HTMLDetailsElement} */ (find("samples")).open) {
      const { length } = series.connections;
      const rows = series.connections.map((connections, at) => ({
        time: series.time - (length - 1 - at) * series.interval,
        connections,
        messages: series.messages[at] ?? 0,
        deliveries: series.deliveries[at] ?? 0,
        delivery: series.delivery_time[at] ?? null,
        publish: series.publish_time[at] ?? null,
        closed: series.closed[at] ?? 0,
        waiting: series.waiting_bytes[at] ?? 0,
      }));
      this._tables.samples.update(rows.reverse());
    }
  }
}
