// The console: requests the overview, and shows it.

import { find, make, nameOf, printable, setLevel, setText } from "./dom.js";
import { clock, duration } from "./format.js";
import { Poller } from "./overview.js";
import { Panels } from "./panels.js";
import { enablePublishing } from "./publish.js";
import { Trace } from "./trace.js";
import { conclude, examine, summarize } from "./verdict.js";

/** @typedef {import("./overview.js").Overview} Overview */

const KEPT = 300; // seconds: how far back the verdict looks
const KEPT_INTERVAL = 10;

/** The earlier overviews with which a new one is compared: their counters. */
class Memory {
  constructor() {
    /** @type {Overview[]} */
    this._kept = [];
  }

  /**
   * Return the oldest overview of the last five minutes, of the same start of the server.
   * @param {Overview} overview
   * @returns {Overview}
   */
  compare(overview) {
    this._kept = this._kept.filter(
      ({ fingerprint, time }) => fingerprint === overview.fingerprint && time >= overview.time - KEPT,
    );
    const last = this._kept.at(-1);
    if (!last || overview.time >= last.time + KEPT_INTERVAL) {
      this._kept.push(overview);
    }
    return this._kept[0] ?? overview;
  }
}

/** @param {import("./finding.js").Finding[]} findings */
const showFindings = (findings) => {
  const list = find("findings");
  const text = JSON.stringify(findings);
  if (list.getAttribute("data-shown") === text) {
    return;
  }
  list.setAttribute("data-shown", text);
  list.replaceChildren(
    ...findings.map(({ level, text, advice, manual }) => {
      const sentence = make("strong", {}, text);
      setLevel(sentence, level);
      return make(
        "li",
        {},
        sentence,
        make("p", {}, advice, " ", make("span", { class: "quiet" }, `Manual: ${manual}`)),
      );
    }),
  );
};

/**
 * @param {number} status
 * @param {string} message
 * @param {string} since
 */
const refusal = (status, message, since) =>
  status === 401
    ? "The server requires its secret (admin.secret): reload the page, and enter it as the password."
    : `The server has refused since ${since}: ${status}, ${printable(message)}.`;

/**
 * @param {string} message
 * @param {string} since
 */
const unreachable = (message, since) =>
  `The server has not been reachable since ${since}: ${message}. Check that it runs (bin/aphlict status on its machine), ` +
  "and your connection to it. This page tries again by itself.";

const start = () => {
  const trace = new Trace();
  const panels = new Panels((query) => trace.show(query));
  const memory = new Memory();
  const verdict = find("verdict-text");
  const reach = find("reach");
  let version = "";
  let lastSeen = 0; // when the server responded last, by the clock of the browser
  let failedSince = 0;
  enablePublishing();
  setText(find("host"), location.host);

  /** @param {Overview} overview */
  const onOverview = (overview) => {
    lastSeen = Date.now();
    failedSince = 0;
    document.body.classList.remove("stale");
    reach.hidden = true;
    version ||= overview.version;
    find("outdated").hidden = version === overview.version;
    setText(find("about"), `version ${nameOf(overview.version)}, up ${duration(overview.uptime)}`);
    setText(find("updated"), `, as of ${clock(overview.time)}`);
    const findings = examine(overview, memory.compare(overview));
    const { level, text } = conclude(findings);
    setText(verdict, text);
    setLevel(verdict, level);
    setText(find("summary"), summarize(overview));
    showFindings(findings);
    document.title = `${level === "good" ? "" : level === "error" ? "✖ " : "▲ "}${text} – Aphlict ${location.host}`;
    panels.update(overview);
  };

  /** @param {import("./overview.js").RequestFailed} error */
  const onFailure = ({ message, status }) => {
    failedSince ||= Date.now();
    const since = clock(failedSince / 1000);
    const text = status ? refusal(status, message, since) : unreachable(message, since);
    setText(reach, lastSeen ? `${text} The figures below are those of ${clock(lastSeen / 1000)}.` : text);
    reach.hidden = false;
    setText(verdict, status ? "No access" : "Not reachable");
    setLevel(verdict, "error");
    document.body.classList.add("stale");
    document.title = `✖ ${verdict.textContent} – Aphlict ${location.host}`;
  };

  new Poller(onOverview, onFailure).poll();
};

start();
