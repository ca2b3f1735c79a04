// @ts-check
/** Web Locks that are held for as long as somebody wants them. */

/**
 * Holds a lock until the signal. Rejects when it is taken from us, or the signal comes while we queue.
 *
 * @param {string} name
 * @param {AbortSignal} signal
 * @param {() => void} granted
 * @param {boolean} [steal]
 */
export function hold(name, signal, granted, steal) {
  return navigator.locks.request(
    name,
    steal ? { steal } : { signal },
    () =>
      new Promise((release) => {
        signal.addEventListener("abort", release);
        signal.aborted ? release(null) : granted();
      }),
  );
}
