// A turn as this page sees it: one request that starts or joins it, and as many as needed to follow it to its end.
// The service owns the turn; losing a connection here only means attaching again.

import * as api from "./api.js";
import { rememberAnswer } from "./answers.js";
import { messageBody, repeatedBody } from "./bodies.js";
import { Unreachable, explain } from "./http.js";
import { newKey } from "./ids.js";
import { noteLastMessage } from "./inbox.js";
import { perTab } from "./memory.js";
import { rememberPreviews } from "./previews.js";
import { readEvents } from "./sse.js";
import { announce } from "./store.js";
import {
  dropLive, dropOutgoing, findMessage, getThread, isUnfinished, patchLive, patchMessage, patchOutgoing, updateThread,
  upsertMessages,
} from "./threads.js";

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 8_000;
const MOST_FAILURES = 9; // in a row; about 40 s of waiting

let session = new AbortController();
const followed = new Map(); // reply id -> the turn that is being followed

/** Ends everything that is being followed: somebody signed out. The turns themselves go on. */
export function abandonTurns() {
  session.abort();
  session = new AbortController();
  followed.clear();
}

export function isFollowed(messageId) {
  return followed.has(messageId);
}

/**
 * Sends a new message. It is kept in the tab until the service has it, so that a reload sends it again, once.
 * media: {pictures, recording, previews}: what uploads answered, and object URLs of the same files.
 */
export function send(conversationId, content, { pictures = [], recording = null, previews = [] } = {}) {
  const item = { key: newKey(), content, pictures, recording };
  if (previews.length) rememberPreviews(item.key, previews);
  keepOutgoing(conversationId, (kept) => [...kept, item]);
  return deliver(conversationId, item);
}

/** Sends again what was refused or never arrived, under the key it had. */
export function sendAgain(conversationId, key) {
  const item = getThread(conversationId).outgoing.find((one) => one.key === key);
  dropOutgoing(conversationId, key);
  return deliver(conversationId, item);
}

export function discard(conversationId, key) {
  dropOutgoing(conversationId, key);
  keepOutgoing(conversationId, (kept) => kept.filter((item) => item.key !== key));
}

/** After a reload: what this tab sent and nobody confirmed. Call it when the history is there. */
export function sendKept(conversationId) {
  const thread = getThread(conversationId);
  const known = new Set([...thread.messages.map((m) => m.client_message_id), ...thread.outgoing.map((o) => o.key)]);
  const kept = perTab.get(`outgoing.${conversationId}`) ?? [];
  keepOutgoing(conversationId, () => kept.filter((item) => !thread.messages.some((m) => m.client_message_id === item.key)));
  for (const item of kept) if (!known.has(item.key)) deliver(conversationId, item);
}

function keepOutgoing(conversationId, change) {
  const key = `outgoing.${conversationId}`;
  const kept = change(perTab.get(key) ?? []);
  perTab.set(key, kept.length ? kept : null);
}

function deliver(conversationId, item) {
  updateThread(conversationId, (thread) => ({
    notice: "",
    outgoing: [...thread.outgoing, { ...item, status: "sending", error: "", isStopping: false }],
  }));
  const body = messageBody(item);
  return follow({ conversationId, key: item.key, open: (signal) => api.sendMessage(conversationId, body, signal) });
}

/** Runs a failed or stopped turn again: the same message under the same key. */
export function retry(conversationId, reply) {
  const question = findMessage(conversationId, reply.reply_to);
  if (!question || !canRepeat(question)) return regenerate(conversationId, reply);
  const body = repeatedBody(question);
  restart(conversationId, reply);
  return follow({
    conversationId,
    messageId: reply.id,
    before: reply,
    open: (signal) => api.sendMessage(conversationId, body, signal),
  });
}

/** Without a key of ours only the newest reply can be asked for again. */
export function canRepeat(question) {
  return Boolean(question.client_message_id);
}

/** Asks for another answer. The old one comes back when the new one fails. */
export function regenerate(conversationId, reply) {
  restart(conversationId, reply);
  perTab.set(`regenerating.${conversationId}`, reply.id);
  return follow({
    conversationId,
    messageId: reply.id,
    before: reply,
    open: (signal, isRepeated) => startRegenerating(conversationId, reply.id, signal, isRepeated),
  });
}

async function startRegenerating(conversationId, messageId, signal, isRepeated) {
  try {
    return await api.regenerate(conversationId, messageId, signal);
  } catch (error) {
    // The first request did arrive, only its answer did not.
    if (isRepeated && error.status === 409) return api.resumeStream(conversationId, messageId, "", signal);
    throw error;
  }
}

function restart(conversationId, reply) {
  updateThread(conversationId, { notice: "" });
  patchLive(conversationId, reply.id, { text: "", isStopping: false, isReconnecting: false });
  if (reply.status === "failed" || reply.status === "cancelled") {
    patchMessage(conversationId, reply.id, { status: "pending", content: "", error: null });
  }
}

/** Follows every reply of the conversation that is still being written, wherever it was asked for. */
export function attachUnfinished(conversationId) {
  const regenerating = perTab.get(`regenerating.${conversationId}`);
  for (const message of getThread(conversationId).messages) {
    if (followed.has(message.id) || message.origin !== "model") continue;
    if (isUnfinished(message) || message.id === regenerating) attach(conversationId, message);
  }
}

function attach(conversationId, message) {
  patchLive(conversationId, message.id, { text: "", isStopping: false, isReconnecting: false });
  return follow({ conversationId, messageId: message.id, before: message, isAttached: true });
}

/** Stops what is being written in the conversation; a message that has not arrived yet is stopped when it does. */
export async function stop(conversationId) {
  const thread = getThread(conversationId);
  for (const item of thread.outgoing) {
    if (item.status === "sending") patchOutgoing(conversationId, item.key, { isStopping: true });
  }
  const running = thread.messages.filter((message) => isUnfinished(message) || thread.live[message.id]);
  // The newest first: stopping the first of a queue would start the next.
  await Promise.all(running.reverse().map((message) => stopReply(conversationId, message.id)));
}

async function stopReply(conversationId, messageId) {
  if (getThread(conversationId).live[messageId]) patchLive(conversationId, messageId, { isStopping: true });
  try {
    const message = await api.cancel(conversationId, messageId);
    // A followed stream tells the end itself, with every piece of text before it.
    if (!followed.has(messageId)) upsertMessages(conversationId, [message]);
  } catch (error) {
    if (getThread(conversationId).live[messageId]) patchLive(conversationId, messageId, { isStopping: false });
    updateThread(conversationId, { notice: `The reply could not be stopped. ${explain(error)}` });
  }
}

// ---- following

/**
 * turn: {conversationId, open(signal, isRepeated)} starts it; `key` of the outgoing message, or `messageId` of the reply with the
 * state it had `before`; `isAttached` when there is nothing to start.
 */
async function follow(turn) {
  const { signal } = session;
  Object.assign(turn, { signal, attempt: null, text: "", lastEventId: "", isStarted: Boolean(turn.isAttached) });
  if (turn.messageId) followed.set(turn.messageId, turn);
  try {
    await followToEnd(turn);
  } catch (error) {
    if (!signal.aborted) giveUp(turn, error);
  } finally {
    if (followed.get(turn.messageId) === turn) followed.delete(turn.messageId);
  }
}

async function followToEnd(turn) {
  let failures = 0;
  for (;;) {
    const heard = turn.lastEventId;
    try {
      await readToEnd(turn, failures);
      return;
    } catch (error) {
      if (turn.signal.aborted || !isWorthWaiting(turn, error)) throw error;
      if (turn.lastEventId !== heard) failures = 0;
      failures += 1;
      if (failures > MOST_FAILURES) throw error;
      showReconnecting(turn, true);
      await pause(waitBefore(failures, error), turn.signal);
    }
  }
}

/** The service has the message: however busy it is, the reply goes on and only has to be attached to again. */
function isWorthWaiting({ isStarted }, error) {
  return error.isTemporary || (isStarted && error.code === "rate_limit_exceeded");
}

function waitBefore(failures, error) {
  if (error.retryAfter) return error.retryAfter * 1000;
  return Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), LONGEST_WAIT_MS) * (0.75 + Math.random() / 2);
}

/** Resolves after the time, or as soon as the browser is online again. */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const settle = () => {
      clearTimeout(timer);
      removeEventListener("online", settle);
      signal.removeEventListener("abort", settle);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(settle, milliseconds);
    addEventListener("online", settle);
    signal.addEventListener("abort", settle);
  });
}

/** One connection. Returns when the turn is over; throws Unreachable when it goes on and must be attached to again. */
async function readToEnd(turn, failures) {
  const response = turn.isStarted
    ? await api.resumeStream(turn.conversationId, turn.messageId, turn.lastEventId, turn.signal)
    : await turn.open(turn.signal, failures > 0);
  for await (const event of readEvents(response)) {
    showReconnecting(turn, false);
    if (event.id) turn.lastEventId = event.id;
    if (event.name === "start") started(turn, event.data);
    else if (event.name === "token") extended(turn, event.data);
    else if (event.name === "done") return done(turn, event.data);
    else if (event.name === "error" && event.data.turn_running) break;
    else if (event.name === "error") return ended(turn, event.data);
  }
  throw new Unreachable(); // cut off, or handed over
}

function started(turn, { user_message, assistant_message_id, attempt }) {
  const { conversationId } = turn;
  if (turn.attempt !== attempt) turn.text = ""; // taken over or run anew: no text is joined across attempts
  turn.attempt = attempt;
  turn.isStarted = true;
  turn.messageId = assistant_message_id;
  followed.set(turn.messageId, turn);
  const isNew = !findMessage(conversationId, assistant_message_id);
  const isStopping = takeOutgoing(turn);
  upsertMessages(conversationId, isNew ? [user_message, placeholder(user_message, assistant_message_id)] : [user_message]);
  patchLive(conversationId, turn.messageId, { text: turn.text, isReconnecting: false });
  noteLastMessage(conversationId, user_message);
  if (isStopping) stopReply(conversationId, turn.messageId);
}

/** The message has arrived: it is no longer on its way. True when it was to be stopped as soon as it did. */
function takeOutgoing({ conversationId, key }) {
  const item = getThread(conversationId).outgoing.find((one) => one.key === key);
  if (key) discard(conversationId, key);
  return Boolean(item?.isStopping);
}

/** The reply as it stands before any text; `done` or the history bring the stored row. */
function placeholder(question, id) {
  return {
    id,
    conversation_id: question.conversation_id,
    role: "assistant",
    content: "",
    message_type: "text",
    media_urls: [],
    created_at: question.created_at,
    completed_at: null,
    status: "pending",
    origin: "model",
    reply_to: question.id,
    attempt: 1,
    sequence: question.sequence + 0.5,
    error: null,
  };
}

function extended(turn, { text }) {
  turn.text += text;
  patchLive(turn.conversationId, turn.messageId, { text: turn.text });
}

function done(turn, { assistant_message, provider, model }) {
  const { conversationId } = turn;
  rememberAnswer(assistant_message.id, { provider, model });
  upsertMessages(conversationId, [assistant_message]);
  finish(turn);
  noteLastMessage(conversationId, assistant_message);
  announce(`${personaName(conversationId)}: ${assistant_message.content}`);
}

function ended(turn, { code, message, retryable }) {
  const { conversationId, messageId, before } = turn;
  if (before && (before.status === "delivered" || before.status === "read")) {
    upsertMessages(conversationId, [before]); // a regenerated reply keeps its old text
    updateThread(conversationId, { notice: code === "CANCELLED" ? "" : `${message} The earlier reply stays.` });
  } else {
    patchMessage(conversationId, messageId, {
      content: turn.text,
      status: code === "CANCELLED" ? "cancelled" : "failed",
      error: { code, message, retryable },
    });
  }
  finish(turn);
  announce(code === "CANCELLED" ? "The reply was stopped." : message);
}

function finish({ conversationId, messageId }) {
  dropLive(conversationId, messageId);
  if (perTab.get(`regenerating.${conversationId}`) === messageId) perTab.set(`regenerating.${conversationId}`, null);
}

function showReconnecting({ conversationId, messageId }, isReconnecting) {
  const live = getThread(conversationId).live[messageId];
  if (live && live.isReconnecting !== isReconnecting) patchLive(conversationId, messageId, { isReconnecting });
}

function personaName(conversationId) {
  return getThread(conversationId).conversation?.influencer?.display_name ?? "Reply";
}

// ---- when it cannot be followed

function giveUp(turn, error) {
  const { conversationId, messageId, before } = turn;
  const { user_message, assistant_message } = error.details ?? {};
  if (user_message && assistant_message) {
    adoptOutcome(turn, user_message, assistant_message, error);
    return;
  }
  const text = explain(error);
  if (!messageId) {
    patchOutgoing(conversationId, turn.key, { status: "refused", error: text });
    announce(text);
    return;
  }
  if (before) upsertMessages(conversationId, [before]);
  finish(turn);
  updateThread(conversationId, { notice: text });
}

/** The service stored both messages and refused afterwards: it says what became of them. */
function adoptOutcome(turn, question, reply, error) {
  takeOutgoing(turn);
  upsertMessages(turn.conversationId, [question, reply]);
  if (turn.messageId) finish(turn);
  followed.delete(turn.messageId);
  if (isUnfinished(reply)) attach(turn.conversationId, reply);
  else if (!reply.error) updateThread(turn.conversationId, { notice: explain(error) });
}
