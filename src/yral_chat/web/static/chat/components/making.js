import { html } from "../preact.js";
import { Avatar } from "./avatar.js";
import { AgainIcon, PictureIcon } from "./icons.js";

/** A picture that is being made, in the place and size that it will have, or why there is none. */
export function Making({ item, persona, isFirst, onAgain, onDrop }) {
  const isMaking = item.status === "making";
  return html`
    <li class="message theirs ${isFirst ? "first" : ""} last" data-status=${item.status}>
      <span class="message-avatar">${isFirst && html`<${Avatar} persona=${persona} size="small" />`}</span>
      <div class="message-body">
        ${isMaking && html`
          <div class="pictures one"><div class="picture ghost making" role="img" aria-label=${`${persona.display_name} is making a picture`}>
            <span class="spinner"></span><${PictureIcon} /></div></div>`}
        ${item.prompt && html`<p class="aside making-prompt">${item.prompt}</p>`}
        ${!isMaking && html`
          <div class="outcome failed">
            <span>No picture. ${item.error}</span>
            <button type="button" class="button small" onClick=${() => onAgain(item.key)}><${AgainIcon} /> Try again</button>
            <button type="button" class="button small quiet" onClick=${() => onDrop(item.key)}>Dismiss</button>
          </div>`}
      </div>
    </li>`;
}
