// Who is chatting. In development the service issues tokens itself; with real issuers a token is pasted.

import { ApiError, request } from "./http.js";
import { longTerm, perTab } from "./memory.js";
import { randomHex } from "./ids.js";

const RENEW_BEFORE_MS = 60_000;

let current = null; // {kind: "development" | "pasted", userId, token, renewAt}
let renewal = null; // the renewal under way, shared by everyone who waits for it
let onRefused = () => {};

/** Calls `listener(text)` when the token is no longer good and nothing can be done about it here. */
export function whenRefused(listener) {
  onRefused = listener;
}

export function userId() {
  return current?.userId ?? null;
}

/**
 * Signs in with what this browser remembers: the tab's pasted token, or the guest of earlier.
 * @returns {Promise<{status: "signed-in" | "signed-out", canIssue: boolean, notice: string}>}
 */
export async function resumeSession() {
  const pasted = perTab.get("token");
  if (pasted) {
    try {
      await signInWithToken(pasted);
      return { status: "signed-in", canIssue: false, notice: "" };
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      perTab.set("token", null);
      return { status: "signed-out", canIssue: longTerm.get("user") !== null, notice: error.message };
    }
  }
  if (longTerm.get("signed-out")) return { status: "signed-out", canIssue: true, notice: "" };
  try {
    await signInAs(longTerm.get("user") || suggestedUser());
    return { status: "signed-in", canIssue: true, notice: "" };
  } catch (error) {
    if (isNotIssuing(error)) return { status: "signed-out", canIssue: false, notice: "" };
    throw error;
  }
}

export function suggestedUser() {
  return `guest-${randomHex(4)}`;
}

/** A development sign-in. Throws the service's 404 where tokens come from elsewhere. */
export async function signInAs(user) {
  current = await issue(user);
  longTerm.set("user", current.userId);
  longTerm.set("signed-out", null);
  perTab.set("token", null);
}

export function isNotIssuing(error) {
  return error instanceof ApiError && error.status === 404;
}

/** Throws the 401 with the service's reason when the token is refused. */
export async function signInWithToken(text) {
  const token = text.trim().replace(/^bearer\s+/i, "");
  const response = await request("api/v1/auth/me", { headers: { Authorization: `Bearer ${token}` } });
  const { user_id } = await response.json();
  current = { kind: "pasted", userId: user_id, token, renewAt: Infinity };
  perTab.set("token", token);
}

export function signOut() {
  // Without this the next load would let a new guest in unasked.
  if (current?.kind === "development") longTerm.set("signed-out", true);
  current = null;
  perTab.set("token", null);
  longTerm.set("user", null);
}

/** A token that is good for at least a minute, as far as this page can know. */
export async function freshToken() {
  if (!current) throw new ApiError(401, { error: "unauthorized", message: "You are signed out." }, null);
  if (Date.now() >= current.renewAt) await renew();
  return current.token;
}

/**
 * The service refused `token`. True when another one is at hand and the request is worth repeating.
 */
export async function replaceToken(token, reason) {
  if (!current) return false;
  if (current.token !== token) return true;
  if (current.kind === "development") {
    await renew();
    return true;
  }
  current = null;
  perTab.set("token", null);
  onRefused(reason);
  return false;
}

function renew() {
  renewal ??= issue(current.userId)
    .then((session) => {
      // Signed out meanwhile, or as somebody else: this token is nobody's.
      if (current?.userId === session.userId) current = session;
    })
    .finally(() => {
      renewal = null;
    });
  return renewal;
}

async function issue(user) {
  const response = await request("api/v1/auth/dev-token", { method: "POST", body: { user_id: user } });
  const { token, expires_in } = await response.json();
  // Counted on this computer's clock, which need not agree with the server's.
  const renewAt = Date.now() + Math.max(expires_in * 1000 - RENEW_BEFORE_MS, expires_in * 500);
  return { kind: "development", userId: user.trim(), token, renewAt };
}
