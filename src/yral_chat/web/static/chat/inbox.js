// The list of conversations, newest first.

import * as api from "./api.js";
import { explain } from "./http.js";
import { getState, updateInbox } from "./store.js";

let reloading = null;

/** The first page anew; what lies below it is fetched again by scrolling. */
export function loadInbox() {
  reloading ??= reload().finally(() => {
    reloading = null;
  });
  return reloading;
}

async function reload() {
  try {
    const page = await api.listConversations(0);
    updateInbox({ status: "ready", items: page.conversations, hasMore: page.has_more, error: "" });
  } catch (error) {
    updateInbox((inbox) => ({ status: inbox.items.length ? "ready" : "failed", error: explain(error) }));
  }
}

export async function loadMoreInbox() {
  try {
    const page = await api.listConversations(getState().inbox.items.length);
    updateInbox((inbox) => {
      const known = new Set(inbox.items.map((item) => item.id));
      const items = [...inbox.items, ...page.conversations.filter((item) => !known.has(item.id))];
      return { items, hasMore: page.has_more, error: "" };
    });
  } catch (error) {
    updateInbox({ error: explain(error) });
  }
}

export function findInboxItem(conversationId) {
  return getState().inbox.items.find((item) => item.id === conversationId);
}

export function patchInboxItem(conversationId, change) {
  updateInbox((inbox) => ({
    items: inbox.items.map((item) => (item.id === conversationId ? { ...item, ...change } : item)),
  }));
}

/** Puts a conversation that was just opened into the list. */
export function addToInbox(conversation) {
  updateInbox((inbox) => {
    const others = inbox.items.filter((item) => item.id !== conversation.id);
    return { items: newestFirst([conversation, ...others]) };
  });
}

/** The newest message of a conversation: moves it to the top, or reloads the list when it is not in it. */
export function noteLastMessage(conversationId, message, change = {}) {
  const item = findInboxItem(conversationId);
  if (!item) {
    loadInbox();
    return;
  }
  patchInboxItem(conversationId, { ...change, ...summaryOf(item, message) });
  updateInbox((inbox) => ({ items: newestFirst(inbox.items) }));
}

function summaryOf(item, message) {
  const now = item.last_message;
  const at = message.completed_at ?? message.created_at;
  if (now && now.id !== message.id && now.created_at > message.created_at) return {};
  return { last_message: message, updated_at: at > item.updated_at ? at : item.updated_at };
}

export function dropFromInbox(conversationId) {
  updateInbox((inbox) => ({ items: inbox.items.filter((item) => item.id !== conversationId) }));
}

// The wire's times all have six fraction digits, so that text order is time order.
function newestFirst(items) {
  return [...items].sort((a, b) => (a.updated_at < b.updated_at ? 1 : a.updated_at > b.updated_at ? -1 : 0));
}
