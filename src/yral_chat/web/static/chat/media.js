// Addresses of pictures and recordings work for some minutes only. A message whose file does not load is fetched again.

import * as api from "./api.js";
import { getThread, upsertMessages } from "./threads.js";
import { isFollowed } from "./turns.js";

const LEAST_BETWEEN_MS = 60_000;
const fetchedAt = new Map(); // message id -> when it was fetched for fresh addresses
const running = new Map(); // conversation and place -> the request under way

/**
 * Fetches a message, and those above it whose addresses are as old; by itself (not `isAsked`) once a minute at most.
 * Resolves to whether it was; rejects when the service does not answer.
 */
export async function refreshMedia(conversationId, messageId, { isAsked }) {
  const { messages } = getThread(conversationId);
  const index = messages.findIndex((message) => message.id === messageId);
  if (index < 0 || (!isAsked && Date.now() - (fetchedAt.get(messageId) ?? -Infinity) < LEAST_BETWEEN_MS)) return false;
  const page = await fetchAbove(conversationId, messages[index + 1]?.id);
  const time = Date.now();
  for (const message of page) fetchedAt.set(message.id, time);
  upsertMessages(conversationId, page.filter((message) => !isFollowed(message.id)));
  return true;
}

// Several pictures of one message fail together.
function fetchAbove(conversationId, nextId) {
  const place = `${conversationId} ${nextId ?? ""}`;
  if (!running.has(place)) {
    const request = api.listMessages(conversationId, nextId).finally(() => running.delete(place));
    running.set(place, request);
  }
  return running.get(place).then((page) => page.messages);
}
