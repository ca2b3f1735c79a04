/** The declarations and the source say the same, and a page can be written against them. */

import * as declared from "../../aphlict/browser/aphlict.js";
import * as source from "../../aphlict/browser/src/aphlict.js";

type Public<T> = Pick<T, keyof T>;

const promised: new (url: string | URL, options?: declared.Options) => Public<declared.Aphlict> = source.Aphlict;
const kept: new (...args: ConstructorParameters<typeof source.Aphlict>) => Public<source.Aphlict> = declared.Aphlict;
const options: Required<declared.Options> = {} as Required<NonNullable<ConstructorParameters<typeof source.Aphlict>[1]>>;
void [promised, kept, options];

const aphlict = new declared.Aphlict("/ws/", { instance: "acme" });
const stop: () => void = aphlict.subscribe("PHID-USER-1", (message) => console.log(message.uniqueID, message.text));
aphlict.addEventListener("message", (event) => console.log(event.data.subscribers));
aphlict.addEventListener("gap", () => location.reload());
const show = (event: MessageEvent<declared.Message>): void => console.log(event.data.uniqueID);
aphlict.addEventListener("message", show);
aphlict.removeEventListener("message", show);
aphlict.token = async () => (await fetch("/notification-token")).text();
aphlict.ready().catch((error: Error) => console.log(error.message, aphlict.status == "unauthorized"));
stop();
// @ts-expect-error: a channel is a string
aphlict.subscribe(1);
