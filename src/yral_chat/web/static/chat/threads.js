// One open conversation: its messages in order, what is on its way up, and what is being written.

import { getState, update } from "./store.js";

const EMPTY_THREAD = {
  status: "loading", // "loading", "ready", "failed", "missing"
  error: "",
  conversation: null,
  messages: [], // as stored, by rising sequence
  hasOlder: false,
  older: "idle", // "idle", "loading", "failed"
  outgoing: [], // not yet stored: {key, content, pictures, recording, status: "sending" | "refused", error}
  attachments: [], // pictures for the next message (attachments.js)
  attachmentProblem: "",
  making: [], // pictures the persona was asked for (pictures.js)
  live: {}, // reply id -> {text, isStopping, isReconnecting}; only while a stream is followed
  notice: "",
};

export function getThread(id) {
  return getState().threads[id] ?? EMPTY_THREAD;
}

/** `change` is an object or a function of the thread. */
export function updateThread(id, change) {
  const thread = getThread(id);
  const changed = { ...thread, ...(typeof change === "function" ? change(thread) : change) };
  update((now) => ({ threads: { ...now.threads, [id]: changed } }));
}

export function dropThread(id) {
  update((now) => {
    const { [id]: _, ...threads } = now.threads;
    return { threads };
  });
}

export function upsertMessages(id, messages) {
  updateThread(id, (thread) => {
    const byId = new Map(thread.messages.map((message) => [message.id, message]));
    for (const message of messages) byId.set(message.id, keepWords(byId.get(message.id), message));
    return { messages: [...byId.values()].sort((a, b) => a.sequence - b.sequence) };
  });
}

/** Socket, stream and history overtake each other: what was once transcribed is not unheard by an older state. */
function keepWords(known, message) {
  if (!known?.transcription || message.transcription) return message;
  return { ...message, content: known.content, transcription: known.transcription };
}

export function findMessage(id, messageId) {
  return getThread(id).messages.find((message) => message.id === messageId);
}

export function patchMessage(id, messageId, change) {
  updateThread(id, (thread) => ({
    messages: thread.messages.map((message) => (message.id === messageId ? { ...message, ...change } : message)),
  }));
}

export function patchLive(id, messageId, change) {
  updateThread(id, (thread) => ({
    live: { ...thread.live, [messageId]: { ...thread.live[messageId], ...change } },
  }));
}

export function dropLive(id, messageId) {
  updateThread(id, (thread) => {
    const { [messageId]: _, ...live } = thread.live;
    return { live };
  });
}

export function patchOutgoing(id, key, change) {
  updateThread(id, (thread) => ({
    outgoing: thread.outgoing.map((item) => (item.key === key ? { ...item, ...change } : item)),
  }));
}

export function dropOutgoing(id, key) {
  updateThread(id, (thread) => ({ outgoing: thread.outgoing.filter((item) => item.key !== key) }));
}

export function isUnfinished(message) {
  return message.status === "pending" || message.status === "streaming";
}

/** True while a reply of this conversation is being written, or a message is on its way. */
export function isBusy(thread) {
  return (
    Object.keys(thread.live).length > 0 ||
    thread.outgoing.some((item) => item.status === "sending") ||
    thread.messages.some(isUnfinished)
  );
}
