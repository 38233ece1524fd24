// Small texts: times, names, counts.

const LOCALE = undefined; // the browser's
const clock = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(LOCALE, { weekday: "short" });
const dayMonth = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const fullDay = new Intl.DateTimeFormat(LOCALE, { weekday: "long", day: "numeric", month: "long" });
const compact = new Intl.NumberFormat(LOCALE, { notation: "compact" });
const DAY_MS = 86_400_000;

export function clockTime(time) {
  return clock.format(new Date(time));
}

function daysAgo(time) {
  const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
  return Math.round((midnight(new Date()) - midnight(new Date(time))) / DAY_MS);
}

/** For lists: the clock today, the weekday within a week, else the date. */
export function shortTime(time) {
  const days = daysAgo(time);
  if (days <= 0) return clockTime(time);
  return (days < 7 ? weekday : dayMonth).format(new Date(time));
}

export function dayName(time) {
  const days = daysAgo(time);
  if (days <= 0) return "Today";
  return days === 1 ? "Yesterday" : fullDay.format(new Date(time));
}

export function count(number, singular, plural) {
  return `${compact.format(number)} ${number === 1 ? singular : plural}`;
}

/** Minutes and seconds, `0:07`. */
export function duration(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** One line without Markdown's signs, for previews. */
export function preview(content) {
  return content.replace(/[*_`~#>]+/g, "").replace(/\s+/g, " ").trim();
}

export function initials(name) {
  return name.split(/\s+/).slice(0, 2).map((word) => [...word][0] ?? "").join("").toUpperCase();
}

// Each persona has a colour of its own throughout the page: by what it is about, else by its name.
const HUES = {
  fitness: 150, dating: 12, astrology: 295, health: 190, technology: 255, cooking: 42, study: 235, companion: 335, travel: 220,
  money: 128,
};

/** Degrees in OKLCH. */
export function hueOf({ category = "", name = "" }) {
  const known = HUES[category.toLowerCase().split(/[\s&/-]+/)[0]];
  if (known !== undefined) return known;
  let hash = 7;
  for (const sign of category || name) hash = (hash * 31 + sign.codePointAt(0)) % 360;
  return hash;
}
