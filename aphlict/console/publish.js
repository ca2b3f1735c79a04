// The test message: the only thing on the page that changes anything.

import { find, make, nameOf, printable, setText } from "./dom.js";
import { clock, count } from "./format.js";
import { request, RequestFailed } from "./overview.js";
import { traceLink } from "./trace.js";

const MAX_RECEIPTS = 5; // that are shown

/** Let the form publish. */
export const enablePublishing = () => {
  const form = /** @type {HTMLFormElement} */ (find("publish-form"));
  const status = find("publish-status");
  const receipts = find("receipts");
  let isSending = false; // a double click sends one message

  const publish = async () => {
    const values = new FormData(form);
    const [channel, text, instance] = ["channel", "text", "instance"].map((name) => String(values.get(name) ?? ""));
    setText(status, "Sending …");
    const answer = await request(`./${instance ? `?${new URLSearchParams({ instance })}` : ""}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ subscribers: [channel], text }),
    });
    setText(status, "Published.");
    const link = traceLink({ id: answer.uniqueID, ...(instance ? { instance } : {}) });
    const receipt = make(
      "li",
      {},
      `${clock(Date.now() / 1000)}: published ${nameOf(answer.uniqueID)} on ${nameOf(channel)}; ` +
        `${count(answer.matched, "client is", "clients are")} subscribed at this node. `,
      make("a", { href: link }, "What became of it?"),
    );
    receipts.prepend(receipt);
    while (receipts.children.length > MAX_RECEIPTS) {
      receipts.lastElementChild?.remove();
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isSending) {
      return;
    }
    isSending = true;
    try {
      await publish();
    } catch (error) {
      const reason = error instanceof RequestFailed ? error.message : String(error);
      setText(status, `Not published: ${printable(reason)}`);
    } finally {
      isSending = false;
    }
  });
};
