// What the inbox socket reports, applied to the page.

import { forget, loadThread, markedRead } from "./conversations.js";
import { loadInbox, noteLastMessage } from "./inbox.js";
import { route } from "./route.js";
import { InboxSocket } from "./socket.js";
import { getState, update } from "./store.js";
import { getThread, upsertMessages } from "./threads.js";
import { isFollowed } from "./turns.js";

let socket = null;

export function goLive(userId) {
  socket?.stop();
  socket = new InboxSocket(userId, { onEvent, onOpen, onState });
}

export function goDark() {
  socket?.stop();
  socket = null;
}

function onState(isConnected) {
  update({ isConnected, typing: {} }); // that somebody has stopped meanwhile is not told again
}

function onOpen(isFirst) {
  loadInbox();
  if (!isFirst) reloadOpenThread();
}

// Needed although missed events are replayed: one's own messages cause no event, and another window may have sent some.
function reloadOpenThread() {
  const { conversationId } = route();
  if (conversationId) loadThread(conversationId);
}

const reactions = {
  new_message({ conversation_id, message, unread_count }) {
    adopt(conversation_id, message);
    noteLastMessage(conversation_id, message, { unread_count });
  },

  message_updated({ conversation_id, message }) {
    adopt(conversation_id, message);
    if (["delivered", "read"].includes(message.status)) noteLastMessage(conversation_id, message);
  },

  conversation_read({ conversation_id, unread_count, reader_id }) {
    if (reader_id === getState().session.userId) markedRead(conversation_id, unread_count);
  },

  conversation_deleted({ conversation_id }) {
    forget(conversation_id);
  },

  typing_status({ conversation_id, is_typing }) {
    setTyping(conversation_id, is_typing);
    // Sent from another window: fetch the question and follow the reply.
    if (is_typing && conversation_id === route().conversationId && !isActiveHere(conversation_id)) loadThread(conversation_id);
  },

  resync() {
    loadInbox();
    reloadOpenThread();
  },
};

function onEvent(name, data) {
  reactions[name]?.(data);
}

/** A reply that is being followed here reaches its end by its own stream. */
function adopt(conversationId, message) {
  if (getState().threads[conversationId] && !isFollowed(message.id)) upsertMessages(conversationId, [message]);
}

function setTyping(conversationId, isTyping) {
  update((now) => {
    const { [conversationId]: _, ...typing } = now.typing;
    return { typing: isTyping ? { ...typing, [conversationId]: true } : typing };
  });
}

function isActiveHere(conversationId) {
  const thread = getThread(conversationId);
  const isAsking = [...thread.outgoing, ...thread.making].some((item) => ["sending", "making"].includes(item.status));
  return isAsking || Object.keys(thread.live).length > 0;
}
