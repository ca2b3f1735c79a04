/** What a page uses of Aphlict; docs/browser.md tells more. */

/**
 * `connecting`, `open` (a WebSocket), `fallback` (Server-Sent Events or polling), `unauthorized` (the server asks for a
 * token, and has refused the one there is: set `token`) or `closed`.
 */
export type Status = "connecting" | "open" | "fallback" | "unauthorized" | "closed";

/** A JWT, or a function that is called for a fresh one when it is needed. */
export type Token = string | (() => string | Promise<string>);

/** A published object as the server sends it: `subscribers` holds those of its channels that were subscribed. */
export interface Message {
  uniqueID: string;
  subscribers: string[];
  [key: string]: any;
}

/** Times are in milliseconds. */
export interface Options {
  /** Of a server that serves several; the default is what the URL says. */
  instance?: string;
  /** One connection for all tabs (the default), or one for this tab alone. */
  share?: boolean;
  /** How often the server is asked for a sign of life (15,000). */
  keepAlive?: number;
  /** The longest first wait before connecting again; it doubles each time (1,000). */
  minDelay?: number;
  /** The longest wait of all (60,000). */
  maxDelay?: number;
  /** The longest wait after a server said that it restarts (2,000). */
  restartDelay?: number;
  /** How long an attempt to connect may take (10,000). */
  timeout?: number;
  /** When a fallback tries WebSocket again (600,000). */
  upgradeAfter?: number;
  /** Where the server asks for one. The default is `?token=` of the URL. */
  token?: Token;
  /** The longest wait, by chance, before a `gap` that a server caused (10,000). */
  gapJitter?: number;
  /** How often the tabs ask whether the one that is connected is alive (5,000). */
  patience?: number;
}

export interface AphlictEvents {
  /** A message on a channel of this tab. */
  message: MessageEvent<Message>;
  /** Messages may have been missed: load the state of the page again. */
  gap: Event;
  /** `status` is another. */
  statuschange: Event;
}

/** Listens to channels of an Aphlict server, over one connection for all tabs of an origin. */
export class Aphlict extends EventTarget {
  /** @param url of the client port, as `wss://notify.example.com/ws/` */
  constructor(url: string | URL, options?: Options);
  readonly status: Status;
  /** Shown from now on, in place of the option of that name. */
  set token(token: Token | undefined);
  /** Listens to a channel; what it returns ends that. A callback is called once for a message, whatever its channels. */
  subscribe(channel: string, callback?: (message: Message) => void): () => void;
  /** Waits until the server has all channels that are subscribed now; rejects where it refuses one, or the token. */
  ready(): Promise<void>;
  /** Ends everything, for good. Other tabs go on. */
  close(): void;

  addEventListener<K extends keyof AphlictEvents>(
    type: K,
    listener: ((event: AphlictEvents[K]) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof AphlictEvents>(
    type: K,
    listener: ((event: AphlictEvents[K]) => void) | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}
