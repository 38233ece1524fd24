// What this tab sent is shown from its own memory until the service's copy is there.

const MOST_MESSAGES = 20;
const kept = new Map(); // key of a message -> object URLs

export function rememberPreviews(key, urls) {
  kept.set(key, urls);
  for (const [oldest, old] of kept) {
    if (kept.size <= MOST_MESSAGES) break;
    kept.delete(oldest);
    old.forEach((url) => URL.revokeObjectURL(url));
  }
}

/** Object URLs in the order of the message's media; undefined after a reload and for messages from elsewhere. */
export function previewsOf(key) {
  return kept.get(key);
}
