// What a message carries: the body of its request, and the words of a stored one without what the service put around them.

const VOICE_MESSAGE = "[Voice message]"; // API contract, section 8.6
const TRANSCRIBED = /(?:^|\n)\[Transcribed: ([\s\S]*?)\]?$/; // a summary may be cut off before the bracket

/** item: {key, content, pictures, recording}; the last two are what uploads answered. */
export function messageBody({ key, content, pictures = [], recording = null }) {
  return {
    message_type: typeOf(content, pictures, recording),
    content,
    media_urls: pictures.map((picture) => picture.storage_key),
    audio_url: recording?.storage_key ?? null,
    client_message_id: key,
  };
}

function typeOf(content, pictures, recording) {
  if (recording) return "audio";
  if (pictures.length === 0) return "text";
  return content ? "multimodal" : "image";
}

/** The body a stored message was sent with; its signed addresses stand for the storage keys. */
export function repeatedBody(message) {
  return {
    message_type: message.message_type,
    content: typedText(message),
    media_urls: message.media_urls,
    audio_url: message.audio_url ?? null,
    client_message_id: message.client_message_id,
  };
}

/** What the sender typed. */
export function typedText({ message_type, content }) {
  if (message_type !== "audio") return content;
  const text = content.replace(TRANSCRIBED, "");
  return text === VOICE_MESSAGE ? "" : text;
}

/** One line for lists. */
export function summaryText(message) {
  if (message.message_type === "text") return message.content;
  const kind = message.message_type === "audio" ? "Voice note" : "Picture";
  const text = typedText(message) || TRANSCRIBED.exec(message.content)?.[1];
  return text ? `${kind}: ${text}` : kind;
}
