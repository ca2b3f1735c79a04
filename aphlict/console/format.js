// Numbers and times as text. Times are those of the browser's time zone.

/**
 * @param {number} value
 * @param {string} one
 * @param {string} many
 */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** @param {number} value */
export const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });

/**
 * A number per second, with as many digits as it needs.
 * @param {number} value
 */
export const rate = (value) =>
  value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });

/** @param {number} value */
export const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value.toLocaleString("en", { maximumFractionDigits: unit && value < 100 ? 1 : 0 })} ${units[unit]}`;
};

/**
 * A short time, such as that of a delivery.
 * @param {number} seconds
 */
export const latency = (seconds) =>
  seconds >= 1
    ? `${rate(seconds)} s`
    : seconds >= 0.001 || !seconds
      ? `${rate(seconds * 1000)} ms`
      : `${rate(seconds * 1e6)} µs`;

/**
 * How long something has lasted: its two largest units.
 * @param {number} seconds
 */
export const duration = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  if (days) {
    return `${days} d ${hours} h`;
  }
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
};

/**
 * The time of day of a Unix time.
 * @param {number} at
 */
export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

/**
 * Date and time of a Unix time.
 * @param {number} at
 */
export const dateAndTime = (at) => {
  const date = new Date(at * 1000);
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(at)}`;
};
