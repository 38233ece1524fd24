import { answerOf } from "../answers.js";
import { typedText } from "../bodies.js";
import { renderMarkdown } from "../markdown.js";
import { html, memo, useMemo } from "../preact.js";
import { previewsOf } from "../previews.js";
import { clockTime } from "../text.js";
import { Avatar } from "./avatar.js";
import { AgainIcon } from "./icons.js";
import { Pictures } from "./pictures.js";
import { Voice } from "./voice.js";

const nothingNewer = async () => false; // for what this page holds itself

/** A stored message, or a reply while it is being written (`live`). onStale(messageId, how): its media do not load (fresh.js). */
export const Bubble = memo((props) => {
  const { message, live, persona, isFirst, isLast, canRetry, canRegenerate, onRetry, onRegenerate, onStale } = props;
  const isUser = message.role === "user";
  const isWriting = Boolean(live) || ["pending", "streaming"].includes(message.status);
  const text = live?.text || (live && isFinal(message) ? "" : typedText(message));
  const refresh = (how) => onStale(message.id, how);
  return html`
    <li class="message ${isUser ? "mine" : "theirs"} ${isFirst ? "first" : ""} ${isLast ? "last" : ""}" data-status=${message.status}
      data-id=${message.id} data-writing=${isWriting ? "" : null}>
      ${!isUser && html`<span class="message-avatar">${isFirst && html`<${Avatar} persona=${persona} size="small" />`}</span>`}
      <div class="message-body">
        ${isFirst && html`<span class="sr-only">${isUser ? "You" : persona.display_name}:</span>`}
        <${Pictures} urls=${message.media_urls} previews=${previewsOf(message.client_message_id)} onStale=${refresh}
          sender=${isUser ? "you" : persona.display_name} />
        ${message.audio_url && html`
          <${Voice} url=${message.audio_url} seconds=${message.audio_duration_seconds} transcription=${message.transcription}
            onStale=${refresh} />`}
        ${text && html`<div class="bubble ${live ? "writing" : ""}"><${Text} text=${text} isUser=${isUser} /></div>`}
        ${isWriting && !text && html`<${Dots} name=${persona.display_name} />`}
        ${live?.isReconnecting && html`<p class="aside" role="status">Reconnecting…</p>`}
        ${!isWriting && !isUser && html`
          <${Footer} message=${message} isLast=${isLast} canRetry=${canRetry} canRegenerate=${canRegenerate} onRetry=${onRetry}
            onRegenerate=${onRegenerate} />`}
        ${isUser && isLast && html`<p class="aside"><${Clock} time=${message.created_at} /></p>`}
      </div>
    </li>`;
});

// While a delivered reply is written anew its old text makes room, and comes back when the new one fails.
function isFinal(message) {
  return message.status === "delivered" || message.status === "read";
}

function Text({ text, isUser }) {
  const content = useMemo(() => (isUser ? text : renderMarkdown(text)), [text, isUser]);
  return html`<div class=${isUser ? "plain" : "prose"}>${content}</div>`;
}

export function Dots({ name }) {
  return html`
    <div class="bubble dots" role="img" aria-label=${`${name} is typing`}><span></span><span></span><span></span></div>`;
}

function Footer({ message, isLast, canRetry, canRegenerate, onRetry, onRegenerate }) {
  if (message.status === "failed" || message.status === "cancelled") {
    const text = message.status === "cancelled" ? "Stopped" : message.error?.message || "The reply could not be written.";
    return html`
      <div class="outcome ${message.status}">
        <span>${text}</span>
        ${canRetry && html`
          <button type="button" class="button small" onClick=${() => onRetry(message)}><${AgainIcon} /> Try again</button>`}
      </div>`;
  }
  if (!isLast) return null;
  const answer = message.origin === "model" && answerOf(message.id);
  return html`
    <p class="aside">
      <${Clock} time=${message.created_at} />
      ${answer && html`<span class="answered-by">${describe(answer)}</span>`}
      ${canRegenerate && html`
        <button type="button" class="link-button" onClick=${() => onRegenerate(message)}><${AgainIcon} /> Regenerate</button>`}
    </p>`;
}

function describe({ provider, model }) {
  if (provider === "offline") return "offline demo";
  return model ? `${provider} · ${model}` : provider;
}

function Clock({ time }) {
  return html`<time datetime=${time}>${clockTime(time)}</time>`;
}

/** A message of the user's that the service does not have yet. */
export function OutgoingBubble({ item, onAgain, onDiscard }) {
  const { pictures = [], recording, content } = item;
  const previews = previewsOf(item.key) ?? [];
  return html`
    <li class="message mine first last" data-status=${item.status}>
      <div class="message-body">
        <${Pictures} urls=${pictures.map(({ url }, index) => previews[index] ?? url)} sender="you" onStale=${nothingNewer} />
        ${recording && html`
          <${Voice} url=${previews[0] ?? recording.url} seconds=${recording.duration_seconds} onStale=${nothingNewer} />`}
        ${content && html`<div class="bubble"><div class="plain">${content}</div></div>`}
        ${item.status === "sending" && html`<p class="aside">Sending…</p>`}
        ${item.status === "refused" && html`
          <div class="outcome failed">
            <span>Not sent. ${item.error}</span>
            <button type="button" class="button small" onClick=${() => onAgain(item.key)}><${AgainIcon} /> Send again</button>
            <button type="button" class="button small quiet" onClick=${() => onDiscard(item.key)}>Discard</button>
          </div>`}
      </div>
    </li>`;
}
