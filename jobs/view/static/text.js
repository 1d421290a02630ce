// Numbers and times as people read them. Pure functions.

/** A number with three significant digits, as the report writes it; an en dash for none. */
export const number = (value) => {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e15) return Math.round(value).toLocaleString("en-US");
  return size >= 1e-4 && size < 1e15 ? String(Number(value.toPrecision(3))) : value.toExponential(2);
};

/** Milliseconds as a time span in one or two units, such as "3 h 5 min". */
export const duration = (milliseconds) => {
  let left = Math.max(0, Math.round(milliseconds / 1000));
  if (left < 60) return `${left} s`;
  const parts = [];
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    const amount = Math.floor(left / length);
    left -= amount * length;
    if (amount || parts.length) parts.push(amount ? `${amount} ${unit}` : "");
  }
  return parts.slice(0, 2).filter(Boolean).join(" ");
};

/** A moment in the reader's own time zone, to the second. */
export const moment = (milliseconds) =>
  milliseconds === null ? "–" : new Date(milliseconds).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A count with its noun: "1 run", "2 runs". */
export const count = (amount, noun) => `${amount.toLocaleString("en-US")} ${noun}${amount === 1 ? "" : "s"}`;
