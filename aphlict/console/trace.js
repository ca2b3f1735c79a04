// The search: what became of a message, or of those on a channel or for a user.

import { ADVICE, codesOf } from "./advice.js";
import { find, make, printable, setText } from "./dom.js";
import { clock } from "./format.js";
import { request, RequestFailed } from "./overview.js";

const FIELDS = ["id", "channel", "user", "instance"];
const PREFIX = "#trace?";

/** @typedef {Record<string, string>} Query id, channel, user, instance, connections */

/**
 * The address of a trace, on this page.
 * @param {Query} query
 */
export const traceLink = (query) => PREFIX + new URLSearchParams(query);

/**
 * Sentences of the server as a list: those that begin with spaces belong to the one before.
 * @param {string[]} lines
 */
const sentences = (lines) => {
  const list = make("ul", { class: "sentences" });
  for (const line of lines) {
    list.append(make("li", { class: line.startsWith(" ") ? "detail" : "" }, printable(line.trim())));
  }
  return list;
};

/** The form, and the findings below it. The address of the page has the query, so that it can be sent to others. */
export class Trace {
  constructor() {
    this._form = /** @type {HTMLFormElement} */ (find("trace-form"));
    this._status = find("trace-status");
    this._result = find("trace-result");
    this._abort = new AbortController();
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.show(this._read());
    });
    addEventListener("hashchange", () => this._onAddress());
    this._onAddress();
  }

  /**
   * Trace, and scroll there.
   * @param {Query} query
   */
  show(query) {
    const link = traceLink(query);
    if (location.hash === link) {
      this._onAddress();
    } else {
      location.hash = link; // and _onAddress follows
    }
  }

  /** @returns {Query} */
  _read() {
    const values = new FormData(this._form);
    const filled = [...values].map(([name, value]) => [name, String(value).trim()]).filter(([, value]) => value);
    return Object.fromEntries(filled);
  }

  _onAddress() {
    if (location.hash.startsWith(PREFIX)) {
      const query = Object.fromEntries(new URLSearchParams(location.hash.slice(PREFIX.length)));
      for (const name of FIELDS) {
        /** @type {HTMLInputElement} */ (this._form.elements.namedItem(name)).value = query[name] ?? "";
      }
      const all = /** @type {HTMLInputElement} */ (this._form.elements.namedItem("connections"));
      all.checked = query["connections"] === "1";
      this._run(query);
    }
  }

  /** @param {Query} query */
  async _run(query) {
    this._abort.abort();
    const abort = (this._abort = new AbortController());
    this._result.replaceChildren();
    find("trace").scrollIntoView();
    if (!query["id"] && !query["channel"] && !query["user"]) {
      setText(this._status, "Enter a uniqueID, a channel or a user.");
      return;
    }
    setText(this._status, "Searching …");
    try {
      const answer = await request(`trace?${new URLSearchParams(query)}`, {}, abort.signal);
      setText(this._status, `As of ${clock(answer.now)}:`);
      this._render(answer);
    } catch (error) {
      if (!abort.signal.aborted) {
        setText(
          this._status,
          `Not traced: ${printable(error instanceof RequestFailed ? error.message : String(error))}`,
        );
      }
    }
  }

  /** @param {any} answer */
  _render(answer) {
    const findings = make("div", {}, sentences(answer.text));
    const { id, channel, user, instance, connections } = answer.query;
    if (answer.found && !connections) {
      const all = {
        ...(id && { id }),
        ...(channel && { channel }),
        ...(user && { user }),
        ...(instance && { instance }),
      };
      findings.append(make("a", { href: traceLink({ ...all, connections: "1" }) }, "Show every connection"));
    }
    const links = this._messages(answer);
    if (links) {
      findings.append(make("h3", {}, "Messages"), links);
    }
    this._result.append(findings);
    const advice = make("dl", {});
    for (const code of codesOf(answer)) {
      advice.append(make("dt", {}, make("code", {}, code)), make("dd", {}, ADVICE[code] ?? ""));
    }
    if (advice.children.length) {
      this._result.append(make("div", {}, make("h3", {}, "What to do"), advice));
    }
  }

  /**
   * Links to the messages that a search for a channel or user has found.
   * @param {any} answer
   */
  _messages(answer) {
    const ids = new Map();
    for (const node of answer.nodes) {
      node.messages.forEach((/** @type {any} */ each) => ids.set(JSON.stringify([each.instance, each.uniqueID]), each));
    }
    if (answer.query.id || !ids.size) {
      return null;
    }
    const links = [...ids.values()].map(({ instance, uniqueID, at }) => {
      const link = traceLink({ id: uniqueID, instance, ...(answer.query.user && { user: answer.query.user }) });
      return make("li", {}, make("a", { href: link }, printable(uniqueID)), ` ${clock(at)}`);
    });
    return make("ul", {}, ...links);
  }
}
