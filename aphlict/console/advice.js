// What to do about the codes of a trace: docs/monitoring.md, Codes of clients.

/** @type {Record<string, string>} */
export const ADVICE = {
  // of clients
  written: "The server has delivered it: look for the cause in the page.",
  replayed: "The client has it, from a replay: look for the cause in the page.",
  waiting: "The client does not read fast enough: look at its network, or at what its page does.",
  queued: "Trace again in a moment. If it stays so, the server has too much work.",
  connected_later:
    "The client subscribed after the message: its page has to resume, or to load its state when it connects.",
  not_subscribed:
    "Compare the names of the channels: those of the message, and those to which the client has subscribed.",
  token_without_channel:
    "The token of the client does not allow the channel: the backend that makes the token has to add it.",
  other_instance:
    "Publisher and client use different instances: compare ?instance= of the publisher with the client's path (~NAME).",
  poll_answered:
    "The client has not polled again since: it has left, or it will receive the message with its next poll.",
  client_left:
    "The client was not connected: its page was closed, or it lost its network. If it comes back, it has to resume.",
  timed_out:
    "The client was silent for ping.timeout: it lost its network or slept. If it comes back, it has to resume.",
  dropped_slow:
    "The client read too slowly: look at its network. It receives the message if it resumes within the history.",
  dropped_limit:
    "There was no memory for its subscriptions: raise limits.subscriptions.total, or find out why it has so many.",
  token_ended: "The token of the client had expired, or its key was removed: its page has to renew the token in time.",
  resume_required: "The node had missed messages, and the client had to resume: see the log of that time.",
  server_stopped: "The process was stopping. The client receives the message if it resumes at once.",
  connection_error: "The connection ended after an error: see the log of that time.",
  // of messages
  duplicate: "Publish under a new uniqueID: a second message with the same one is not delivered.",
  other_channel: "The message was not published to that channel: correct the publisher.",
  evicted: "The message is too old for a trace. Send a test message, and trace that.",
  unknown: "The node knows nothing about it: see whether the publisher received a receipt, and from which node.",
  // of nodes
  node_unreachable:
    "Check that the node runs, and that this machine reaches its admin port. Its clients receive the message when it " +
    "is back, within about a minute.",
  node_without_trace: "The node is an older version, or a Node.js server: ask that node itself.",
  message_missing: "The message did not reach that node. If it was started later, its clients had to load their state.",
  process_silent: "A process of the node did not respond: trace again in a moment, and look at the log.",
};

/**
 * The codes in a response to `GET /trace` that say why somebody lacks a message, or who has it.
 * @param {any} answer
 * @returns {string[]}
 */
export const codesOf = (answer) => {
  const found = new Set();
  for (const node of answer.nodes) {
    found.add(node.code);
    if (answer.query.id) {
      found.add(node.message);
    }
    node.messages.forEach((/** @type {any} */ message) =>
      Object.keys(message.clients).forEach((code) => found.add(code)),
    );
    node.connections.forEach((/** @type {any} */ connection) => found.add(connection.code));
  }
  if (answer.nodes.some((/** @type {any} */ node) => node.messages.length)) {
    found.delete("unknown"); // to the nodes that lack it, message_missing applies
  }
  return Object.keys(ADVICE).filter((code) => found.has(code));
};
