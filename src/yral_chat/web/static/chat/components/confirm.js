import { html, useEffect, useId, useRef } from "../preact.js";

/** A question that must be answered before anything else; Escape means no. */
export function Confirm({ title, text, action, isBusy, problem, onConfirm, onClose }) {
  const dialog = useRef(null);
  const no = useRef(null);
  const id = useId();
  useEffect(() => {
    dialog.current.showModal();
    no.current.focus();
  }, []);
  return html`
    <dialog ref=${dialog} class="confirm" aria-labelledby=${`${id}-title`} aria-describedby=${`${id}-text`} onClose=${onClose}>
      <h2 id=${`${id}-title`}>${title}</h2>
      <p id=${`${id}-text`}>${text}</p>
      ${problem && html`<p class="problem-text" role="alert">${problem}</p>`}
      <div class="confirm-buttons">
        <button type="button" ref=${no} class="button quiet" onClick=${() => dialog.current.close()}>Keep it</button>
        <button type="button" class="button danger" disabled=${isBusy} onClick=${onConfirm}>${action}</button>
      </div>
    </dialog>`;
}
