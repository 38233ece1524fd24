export function randomHex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A new idempotency key. `crypto.randomUUID` exists only on https and localhost. */
export function newKey() {
  return crypto.randomUUID?.() ?? randomHex(16);
}
