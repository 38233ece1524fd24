import { html } from "../preact.js";

/** Something went wrong, said where it happened, with what can be done about it. */
export function Notice({ text, action, onAction, onClose, kind = "problem" }) {
  return html`
    <div class="notice ${kind}" role=${kind === "problem" ? "alert" : "note"}>
      <p>${text}</p>
      ${action && html`<button type="button" class="button small" onClick=${onAction}>${action}</button>`}
      ${onClose && html`<button type="button" class="button small quiet" onClick=${onClose}>Dismiss</button>`}
    </div>`;
}
