/** The public API. `npm run build` makes the type declarations from this file, so all public types are here. */
export type State = "connecting" | "open" | "fallback" | "unauthorized" | "disconnected";
export type SubscriptionState = "pending" | "subscribed" | "refused" | "closed";
export type Token = string | (() => string | Promise<string>);
export type Message<T = {
    [key: string]: any;
}> = T & {
    uniqueID: string;
    subscribers: string[];
};
export type ErrorDetails = {
    /**
     * stable, such as `channel_forbidden`; docs/browser.md lists the codes
     */
    code: string;
    /**
     * a sentence for people, which may change
     */
    message: string;
    /**
     * the HTTP status of the error, or 0 if it does not come from the server
     */
    status: number;
    /**
     * those of this page that were refused; empty if the error concerns the whole connection
     */
    channels: string[];
};
export type Options = {
    /**
     * of a server with several; default: the instance in the URL
     */
    instance?: string;
    /**
     * default: the parameter `token` of the URL
     */
    token?: Token;
    /**
     * one connection for all tabs (default), or one for this tab alone
     */
    sharedConnection?: boolean;
    /**
     * time between two pings (15,000)
     */
    pingInterval?: number;
    /**
     * maximum delay of the first reconnect; it doubles with each attempt (1,000)
     */
    minReconnectDelay?: number;
    /**
     * maximum delay of any reconnect (60,000)
     */
    maxReconnectDelay?: number;
    /**
     * maximum delay of the reconnect to a server that restarts (2,000)
     */
    maxRestartDelay?: number;
    /**
     * timeout of an attempt to connect (10,000)
     */
    connectTimeout?: number;
    /**
     * time after which a fallback tries WebSocket again (600,000)
     */
    webSocketRetryInterval?: number;
    /**
     * time between two checks that the tab with the connection is alive (5,000)
     */
    leaderCheckInterval?: number;
    /**
     * maximum random delay of a `gap` that the server caused (10,000)
     */
    gapJitter?: number;
};
export type SubscriptionProperties = {
    /**
     * resolves when the server has acknowledged the subscription; rejects with an
     * `AphlictError` if it refuses it
     */
    ready: Promise<void>;
    state: SubscriptionState;
    /**
     * the reason of the state `refused`
     */
    error: ErrorDetails | null;
    unsubscribe: () => void;
};
export type Subscription = (() => void) & Readonly<SubscriptionProperties>;
export type AphlictEvents<T> = {
    /**
     * a message on a channel of this tab
     */
    message: MessageEvent<Message<T>>;
    /**
     * messages may have been missed: load the state of the page again
     */
    gap: Event;
    /**
     * the server refuses a channel, the token or the connection
     */
    error: Event & ErrorDetails;
    /**
     * `state` has changed
     */
    statechange: Event;
};
export type AphlictEventTarget<T> = {
    addEventListener: {
        <K extends keyof AphlictEvents<T>>(type: K, listener: ((event: AphlictEvents<T>[K]) => void) | null, options?: boolean | AddEventListenerOptions): void;
        (type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
    };
    removeEventListener: {
        <K extends keyof AphlictEvents<T>>(type: K, listener: ((event: AphlictEvents<T>[K]) => void) | null, options?: boolean | EventListenerOptions): void;
        (type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
    };
    dispatchEvent: (event: Event) => boolean;
};
/**
 * The state of the connection: `connecting`, `open` (a WebSocket), `fallback` (Server-Sent Events or polling),
 * `unauthorized` (the server requires a token, and has refused the one of this page: set `token`) or `disconnected`
 * (after `disconnect()`).
 *
 * @typedef {"connecting" | "open" | "fallback" | "unauthorized" | "disconnected"} State
 */
/**
 * The state of a subscription: `pending` until the server acknowledges it, and while the connection is lost.
 *
 * @typedef {"pending" | "subscribed" | "refused" | "closed"} SubscriptionState
 */
/**
 * A JWT, or a function that is called for another one whenever it is needed.
 *
 * @typedef {string | (() => string | Promise<string>)} Token
 */
/**
 * A published object as the server sends it. `T` is what the publisher puts into it.
 *
 * @template [T={ [key: string]: any }]
 * @typedef {T & { uniqueID: string, subscribers: string[] }} Message `subscribers`: those of its channels that the tabs
 *   of this browser have subscribed to
 */
/**
 * @typedef {object} ErrorDetails
 * @property {string} code stable, such as `channel_forbidden`; docs/browser.md lists the codes
 * @property {string} message a sentence for people, which may change
 * @property {number} status the HTTP status of the error, or 0 if it does not come from the server
 * @property {string[]} channels those of this page that were refused; empty if the error concerns the whole connection
 */
/**
 * Times are in milliseconds.
 *
 * @typedef {object} Options
 * @property {string} [instance] of a server with several; default: the instance in the URL
 * @property {Token} [token] default: the parameter `token` of the URL
 * @property {boolean} [sharedConnection] one connection for all tabs (default), or one for this tab alone
 * @property {number} [pingInterval] time between two pings (15,000)
 * @property {number} [minReconnectDelay] maximum delay of the first reconnect; it doubles with each attempt (1,000)
 * @property {number} [maxReconnectDelay] maximum delay of any reconnect (60,000)
 * @property {number} [maxRestartDelay] maximum delay of the reconnect to a server that restarts (2,000)
 * @property {number} [connectTimeout] timeout of an attempt to connect (10,000)
 * @property {number} [webSocketRetryInterval] time after which a fallback tries WebSocket again (600,000)
 * @property {number} [leaderCheckInterval] time between two checks that the tab with the connection is alive (5,000)
 * @property {number} [gapJitter] maximum random delay of a `gap` that the server caused (10,000)
 */
/**
 * @typedef {object} SubscriptionProperties
 * @property {Promise<void>} ready resolves when the server has acknowledged the subscription; rejects with an
 *   `AphlictError` if it refuses it
 * @property {SubscriptionState} state
 * @property {ErrorDetails | null} error the reason of the state `refused`
 * @property {() => void} unsubscribe
 */
/**
 * A function that unsubscribes, with the state of the subscription.
 *
 * @typedef {(() => void) & Readonly<SubscriptionProperties>} Subscription
 */
/**
 * @template T
 * @typedef {object} AphlictEvents
 * @property {MessageEvent<Message<T>>} message a message on a channel of this tab
 * @property {Event} gap messages may have been missed: load the state of the page again
 * @property {Event & ErrorDetails} error the server refuses a channel, the token or the connection
 * @property {Event} statechange `state` has changed
 */
/**
 * @template T
 * @typedef {object} AphlictEventTarget
 * @property {{
 *   <K extends keyof AphlictEvents<T>>(type: K, listener: ((event: AphlictEvents<T>[K]) => void) | null,
 *     options?: boolean | AddEventListenerOptions): void;
 *   (type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions):
 *     void;
 * }} addEventListener
 * @property {{
 *   <K extends keyof AphlictEvents<T>>(type: K, listener: ((event: AphlictEvents<T>[K]) => void) | null,
 *     options?: boolean | EventListenerOptions): void;
 *   (type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
 * }} removeEventListener
 * @property {(event: Event) => boolean} dispatchEvent
 */
/** @type {new <T>() => AphlictEventTarget<T>} */
declare const TypedEventTarget: new <T>() => AphlictEventTarget<T>;
/** The reason why a promise of this module rejects. */
export declare class AphlictError extends Error {
    code: string;
    status: number;
    channels: string[];
    /** @param {ErrorDetails} details */
    constructor({ code, message, status, channels }: ErrorDetails);
}
/**
 * A client of an Aphlict server, which shares one connection with all tabs of its origin. `T` is the type of what
 * publishers put into messages.
 *
 * @template {object} [T={ [key: string]: any }]
 * @extends {TypedEventTarget<T>}
 */
export declare class Aphlict<T extends object = {
    [key: string]: any;
}> extends TypedEventTarget<T> {
    #private;
    /**
     * @param {string | URL} url of the client port, such as `wss://notify.example.com/ws/`
     * @param {Options} [options]
     */
    constructor(url: string | URL, options?: Options);
    get state(): State;
    /** @param {Token | undefined} token replaces the option `token` */
    set token(token: Token | undefined);
    /**
     * Subscribes to one channel or several. A callback is called once for each message, whatever its channels.
     *
     * @param {string | readonly string[]} channels
     * @param {(message: Message<T>) => void} [callback] without one, messages are delivered as `message` events only
     * @returns {Subscription}
     */
    subscribe(channels: string | readonly string[], callback?: (message: Message<T>) => void): Subscription;
    /**
     * Resolves when the server has acknowledged all channels that are subscribed: messages that are published later are
     * delivered. Rejects with an `AphlictError` if the server refuses one of them, or the token.
     *
     * @returns {Promise<void>}
     */
    ready(): Promise<void>;
    /** Connects again after `disconnect()`. While a reconnect is delayed, it is tried immediately. */
    connect(): void;
    /** Closes the connection of this tab. Its subscriptions remain, and are pending until `connect()`. */
    disconnect(): void;
}
export {};
