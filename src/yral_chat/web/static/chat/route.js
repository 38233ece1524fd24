// The address after `#`: "/" the personas, "/chats" the list (a place of its own only on a phone), "/c/<id>" a conversation.

/** `{view: "personas" | "chats" | "conversation", conversationId}` */
export function route(hash = location.hash) {
  const conversation = /^#\/c\/(.+)$/.exec(hash);
  if (conversation) return { view: "conversation", conversationId: decode(conversation[1]) };
  return { view: hash === "#/chats" ? "chats" : "personas", conversationId: null };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function conversationHash(id) {
  return `#/c/${encodeURIComponent(id)}`;
}
