/** A page can be written against the declarations. */

import { Aphlict, AphlictError, type Message, type Options, type Subscription } from "../../aphlict/browser/aphlict.js";

const options: Options = { instance: "acme", sharedConnection: false, pingInterval: 5_000 };
const aphlict = new Aphlict("/ws/", options);
const stop: () => void = aphlict.subscribe("PHID-USER-1", (message) => console.log(message.uniqueID, message.text));
aphlict.addEventListener("message", (event) => console.log(event.data.subscribers));
aphlict.addEventListener("gap", () => location.reload());
aphlict.addEventListener("statechange", () => console.log(aphlict.state == "unauthorized"));
aphlict.addEventListener("error", ({ code, message, status, channels }) => {
  const text: string = code + message;
  const count: number = status + channels.length;
  console.log(text, count);
});
const show = (event: MessageEvent<Message>): void => console.log(event.data.uniqueID);
aphlict.addEventListener("message", show);
aphlict.removeEventListener("message", show);
aphlict.token = async () => (await fetch("/notification-token")).text();
aphlict.ready().catch((error: AphlictError) => console.log(error.code, error.message, error.channels));
aphlict.disconnect();
aphlict.connect();
stop();

const subscription: Subscription = aphlict.subscribe(["PHID-USER-1", "PHID-TASK-7"]);
const ready: Promise<void> = subscription.ready;
const state: "pending" | "subscribed" | "refused" | "closed" = subscription.state;
const code: string | undefined = subscription.error?.code;
void [ready, state, code];
subscription.unsubscribe();
subscription();

// The payload has a type
type Comment = { author: string; text: string };
const comments = new Aphlict<Comment>("/ws/");
comments.subscribe("comments", ({ author, text, uniqueID }) => console.log(author.length, text.length, uniqueID));
comments.addEventListener("message", ({ data }) => console.log(data.author.length, data.subscribers.length));

// @ts-expect-error: a channel is a string
aphlict.subscribe(1);
// @ts-expect-error: messages have no such property
comments.subscribe("comments", (message) => console.log(message.title));
// @ts-expect-error: no state has this name
console.log(aphlict.state == "closed");
// @ts-expect-error: the state is read-only
subscription.state = "closed";
