// @ts-check
/** Web Locks with a lifetime. */

/**
 * Requests a lock, and holds it until the signal. Rejects if another tab steals it, or on a signal before it is granted.
 *
 * @param {string} name
 * @param {AbortSignal} signal
 * @param {() => void} onGranted
 * @param {boolean} [steal]
 */
export function holdLock(name, signal, onGranted, steal) {
  return navigator.locks.request(
    name,
    steal ? { steal } : { signal }, // the API forbids both together
    () =>
      new Promise((release) => {
        signal.addEventListener("abort", release);
        signal.aborted ? release(null) : onGranted();
      }),
  );
}
