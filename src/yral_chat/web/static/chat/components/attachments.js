import { detach, uploadAgain } from "../attachments.js";
import { html, useState } from "../preact.js";
import { AgainIcon, CloseIcon, PictureIcon } from "./icons.js";

/** What will go with the next message: each picture small, with how far it is, and what went wrong. */
export function Attachments({ conversationId, items }) {
  if (items.length === 0) return null;
  return html`
    <div class="attachments" role="group" aria-label="Attached pictures">
      <ul class="thumbs">
        ${items.map((item) => html`<${Thumb} key=${item.key} item=${item} onRemove=${() => detach(conversationId, item.key)} />`)}
      </ul>
      ${items.filter((item) => item.status === "failed").map((item) => html`
        <p key=${item.key} class="attachment-problem" role="alert">
          <span><strong>${item.file.name || "The picture"}</strong> was not uploaded. ${item.error}</span>
          ${item.canRepeat && html`
            <button type="button" class="button small" onClick=${() => uploadAgain(conversationId, item.key)}><${AgainIcon} /> Try again</button>`}
        </p>`)}
    </div>`;
}

function Thumb({ item, onRemove }) {
  const [isShown, setShown] = useState(true);
  const name = item.file.name || "picture";
  return html`
    <li class="thumb" data-status=${item.status}>
      ${isShown
        ? html`<img src=${item.preview} alt=${name} onError=${() => setShown(false)} />`
        : html`<span class="thumb-blank" role="img" aria-label=${name}><${PictureIcon} /></span>`}
      ${item.status === "uploading" && html`<progress max="1" value=${item.progress} aria-label=${`Uploading ${name}`}></progress>`}
      <button type="button" class="thumb-remove" aria-label=${`Remove ${name}`} title="Remove" onClick=${onRemove}><${CloseIcon} /></button>
    </li>`;
}
