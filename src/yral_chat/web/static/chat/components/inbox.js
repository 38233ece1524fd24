import { summaryText } from "../bodies.js";
import { loadInbox, loadMoreInbox } from "../inbox.js";
import { html, memo } from "../preact.js";
import { conversationHash } from "../route.js";
import { useStore } from "../store.js";
import { hueOf, preview, shortTime } from "../text.js";
import { Avatar } from "./avatar.js";
import { Notice } from "./notice.js";

export function Inbox({ currentId }) {
  const inbox = useStore((state) => state.inbox);
  const typing = useStore((state) => state.typing);
  return html`
    <div class="inbox">
      <h2 class="section-title">Chats</h2>
      ${inbox.error && html`<${Notice} text=${inbox.error} action="Try again" onAction=${loadInbox} />`}
      ${inbox.status === "loading" && html`<${Placeholders} />`}
      ${inbox.status === "ready" && inbox.items.length === 0 && html`
        <p class="empty">Nothing here yet. Choose somebody to talk to, and the conversation will wait here for you.</p>`}
      <ul class="inbox-list">
        ${inbox.items.map((item) => html`
          <${InboxRow} key=${item.id} item=${item} isCurrent=${item.id === currentId} isTyping=${Boolean(typing[item.id])} />`)}
      </ul>
      ${inbox.hasMore && html`
        <button type="button" class="button quiet wide" onClick=${loadMoreInbox}>Show earlier chats</button>`}
    </div>`;
}

const InboxRow = memo(({ item, isCurrent, isTyping }) => {
  const { influencer, last_message: last, unread_count: unread } = item;
  return html`
    <li>
      <a class="inbox-row" href=${conversationHash(item.id)} aria-current=${isCurrent ? "page" : null}
        style=${{ "--hue": hueOf(influencer) }}>
        <${Avatar} persona=${influencer} isOnline=${influencer.is_online} />
        <span class="inbox-text">
          <span class="inbox-line">
            <span class="inbox-name">${influencer.display_name}</span>
            <time class="inbox-time" datetime=${item.updated_at}>${shortTime(item.updated_at)}</time>
          </span>
          <span class="inbox-line">
            ${isTyping
              ? html`<span class="inbox-preview typing-text">typing…</span>`
              : html`<span class="inbox-preview">${last ? lead(last) : "Say hello"}</span>`}
            ${unread > 0 && html`
              <span class="badge"><span aria-hidden="true">${unread > 99 ? "99+" : unread}</span>
                <span class="sr-only">${unread} unread</span></span>`}
          </span>
        </span>
      </a>
    </li>`;
});

function lead(message) {
  const text = preview(summaryText(message));
  return message.role === "user" ? `You: ${text}` : text;
}

function Placeholders() {
  return html`<div class="inbox-list" aria-hidden="true">${[1, 2, 3].map((n) => html`<div key=${n} class="inbox-row ghost"></div>`)}</div>`;
}
