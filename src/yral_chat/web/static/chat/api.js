// The routes this page uses, one function each. Results are the response bodies of the API contract.

import { address, request } from "./http.js";
import { freshToken, replaceToken } from "./session.js";
import { submit } from "./uploads.js";

const PAGE = 30;

async function call(path, options = {}, transport = request) {
  const token = await freshToken();
  try {
    return await transport(path, withToken(options, token));
  } catch (error) {
    if (error.status !== 401 || !(await replaceToken(token, error.message))) throw error;
    return transport(path, withToken(options, await freshToken()));
  }
}

function withToken(options, token) {
  return { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } };
}

async function json(path, options) {
  return (await call(path, options)).json();
}

function conversationPath(id, rest = "") {
  return `api/v1/chat/conversations/${encodeURIComponent(id)}${rest}`;
}

function messagePath(conversationId, messageId, rest) {
  return conversationPath(conversationId, `/messages/${encodeURIComponent(messageId)}${rest}`);
}

export function listInfluencers(offset) {
  return json(`api/v1/influencers?limit=100&offset=${offset}`);
}

export function listConversations(offset) {
  return json(`api/v2/chat/conversations?limit=${PAGE}&offset=${offset}`);
}

export function openConversation(influencerId) {
  return json("api/v1/chat/conversations", { method: "POST", body: { influencer_id: influencerId } });
}

export function getConversation(id) {
  return json(conversationPath(id));
}

export function deleteConversation(id) {
  return json(conversationPath(id), { method: "DELETE" });
}

export function markRead(id) {
  return json(conversationPath(id, "/read"), { method: "POST" });
}

/** Newest first; with `before`, what lies just above that message. Failed and running replies are included. */
export function listMessages(id, before) {
  const above = before ? `&before=${encodeURIComponent(before)}` : "";
  return json(conversationPath(id, `/messages?limit=${PAGE}&order=desc&include=unfinished${above}`));
}

/** The three below resolve to an event stream once the service accepts. */
export function sendMessage(conversationId, body, signal) {
  return call(conversationPath(conversationId, "/messages/stream"), { method: "POST", body, signal });
}

export function regenerate(conversationId, messageId, signal) {
  return call(messagePath(conversationId, messageId, "/regenerate?stream=true"), { method: "POST", signal });
}

export function resumeStream(conversationId, messageId, lastEventId, signal) {
  const headers = lastEventId ? { "Last-Event-ID": lastEventId } : {};
  return call(messagePath(conversationId, messageId, "/stream"), { headers, signal });
}

export function cancel(conversationId, messageId) {
  return json(messagePath(conversationId, messageId, "/cancel"), { method: "POST" });
}

/** Resolves to the message with the picture, which may take a minute. The same key asks for the same picture. */
export function makePicture(conversationId, prompt, key) {
  const headers = { "Idempotency-Key": key };
  return json(conversationPath(conversationId, "/images"), { method: "POST", body: { prompt }, headers });
}

/** kind: "image" or "audio". `onProgress` is called with 0..1. */
export async function upload(kind, file, { onProgress, signal }) {
  const form = new FormData();
  form.append("type", kind); // before the file: the service checks it while the file comes in
  form.append("file", file);
  return (await call("api/v1/media/upload", { form, onProgress, signal }, submit)).json();
}

/** The address of the inbox socket; `since` is the last event seen, or null. */
export function inboxAddress(userId, since) {
  const url = address(`api/v1/chat/ws/inbox/${encodeURIComponent(userId)}`);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (since !== null) url.searchParams.set("since", since);
  return url;
}
