// Opening, reading, paging and deleting conversations.

import * as api from "./api.js";
import { ApiError, explain } from "./http.js";
import { addToInbox, dropFromInbox, patchInboxItem } from "./inbox.js";
import { askKept } from "./pictures.js";
import { getState, updateInfluencers } from "./store.js";
import { dropThread, getThread, updateThread, upsertMessages } from "./threads.js";
import { attachUnfinished, isFollowed, sendKept } from "./turns.js";

const MOST_INFLUENCERS = 1000;

/** The whole catalogue, page by page, so that the search finds everybody. */
export async function loadInfluencers() {
  updateInfluencers({ status: "loading", error: "" });
  try {
    const items = [];
    for (let hasMore = true; hasMore && items.length < MOST_INFLUENCERS; ) {
      const page = await api.listInfluencers(items.length);
      items.push(...page.influencers);
      hasMore = page.has_more && page.influencers.length > 0;
      updateInfluencers({ status: "ready", items: [...items] });
    }
    updateInfluencers({ status: "ready" });
  } catch (error) {
    updateInfluencers({ status: "failed", error: explain(error) });
  }
}

/** Opens or reopens the conversation with a persona and resolves to its id. */
export async function openWith(influencerId) {
  const { recent_messages: recent, ...conversation } = await api.openConversation(influencerId);
  addToInbox(conversation);
  updateThread(conversation.id, { conversation });
  upsertMessages(conversation.id, recent);
  return conversation.id;
}

/** Fetches a conversation and the newest part of its history, and follows what is being written in it. */
export async function loadThread(id) {
  try {
    const [conversation, page] = await Promise.all([api.getConversation(id), api.listMessages(id)]);
    const { recent_messages: _, ...rest } = conversation;
    adoptNewest(id, page);
    updateThread(id, { conversation: rest, status: "ready", error: "", notice: "" });
    sendKept(id);
    askKept(id);
    attachUnfinished(id);
  } catch (error) {
    const isGone = error instanceof ApiError && [403, 404].includes(error.status);
    if (getThread(id).status === "ready" && !isGone) updateThread(id, { notice: explain(error) });
    else updateThread(id, { status: isGone ? "missing" : "failed", error: explain(error) });
  }
}

function adoptNewest(id, page) {
  const { messages } = getThread(id);
  const newest = messages.at(-1);
  // When the newest page does not reach down to what is here, something is missing between the two: start from it.
  const isJoined = !newest || !page.has_more || page.messages.some((message) => message.id === newest.id);
  if (!isJoined) updateThread(id, { messages: messages.filter((message) => isFollowed(message.id)) });
  const isFirst = getThread(id).status !== "ready";
  // A reply that is being followed here is ahead of its stored row.
  upsertMessages(id, page.messages.filter((message) => !isFollowed(message.id)));
  if (!isJoined || isFirst) updateThread(id, { hasOlder: page.has_more });
}

export async function loadOlder(id) {
  const thread = getThread(id);
  if (!thread.hasOlder || thread.older === "loading") return;
  updateThread(id, { older: "loading" });
  try {
    const page = await api.listMessages(id, thread.messages[0].id);
    upsertMessages(id, page.messages);
    updateThread(id, { older: "idle", hasOlder: page.has_more });
  } catch (error) {
    updateThread(id, { older: "failed", notice: explain(error) });
  }
}

const beingRead = new Set();

/** Marks the conversation as read when somebody can see it. */
export async function readIfVisible(id) {
  if (document.visibilityState !== "visible" || beingRead.has(id) || !hasUnread(id)) return;
  beingRead.add(id);
  try {
    const { unread_count } = await api.markRead(id);
    markedRead(id, unread_count);
  } catch (error) {
    // It stays unread and is tried again with the next message; nobody needs to be told.
    console.warn(explain(error));
  } finally {
    beingRead.delete(id);
  }
}

function hasUnread(id) {
  const { status, messages } = getThread(id);
  return status === "ready" && messages.some((message) => message.role === "assistant" && message.status === "delivered");
}

/** Here or in another window. */
export function markedRead(id, unreadCount) {
  patchInboxItem(id, { unread_count: unreadCount });
  if (!getState().threads[id]) return;
  updateThread(id, (thread) => ({
    messages: thread.messages.map((message) =>
      message.role === "assistant" && message.status === "delivered" ? { ...message, status: "read", is_read: true } : message,
    ),
  }));
}

export async function removeConversation(id) {
  try {
    await api.deleteConversation(id);
  } catch (error) {
    if (error.status !== 404) throw error; // gone already, from another window
  }
  forget(id);
}

/** Somebody deleted it, here or in another window. */
export function forget(id) {
  dropFromInbox(id);
  if (getState().threads[id]) {
    dropThread(id);
    updateThread(id, { status: "missing", error: "This conversation was deleted." });
  }
}
