import { perTab } from "../memory.js";
import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "../preact.js";
import { SendIcon, StopIcon } from "./icons.js";

const MOST_SIGNS = 4000; // code points, as the service counts
const WARN_FROM = 3600;

export function Composer({ conversationId, name, isBusy, isStopping, onSend, onStop }) {
  const [draft, setDraft] = useDraft(conversationId);
  const [wasTooEarly, setTooEarly] = useState(false);
  const field = useRef(null);
  const id = useId();
  const length = [...draft.trim()].length;
  const isTooLong = length > MOST_SIGNS;

  useGrowing(field, draft);
  useEffect(() => {
    // On a phone this would open the keyboard over what one came to read.
    if (matchMedia("(pointer: fine)").matches) field.current.focus();
  }, [conversationId]);

  const send = () => {
    const text = field.current.value.trim();
    if (!text || isTooLong) return;
    setTooEarly(isBusy);
    if (isBusy) return;
    onSend(text);
    setDraft("");
    field.current.focus();
  };

  const onInput = (event) => {
    setDraft(event.currentTarget.value);
    setTooEarly(false);
  };

  const onKeyDown = (event) => {
    // Enter that ends the input of a composed character belongs to the input method.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };

  return html`
    <form class="composer" onSubmit=${(event) => { event.preventDefault(); send(); }}>
      <div class="composer-box">
        <label class="sr-only" for=${id}>Message to ${name}</label>
        <textarea ref=${field} id=${id} rows="1" value=${draft} placeholder=${`Message ${name}`} enterkeyhint="send"
          aria-describedby=${`${id}-hint`} aria-invalid=${isTooLong ? "true" : null}
          onInput=${onInput} onKeyDown=${onKeyDown}></textarea>
        ${isBusy
          ? html`<button key="stop" type="button" class="round stop" aria-label="Stop the reply" disabled=${isStopping} onClick=${onStop}><${StopIcon} /></button>`
          : html`<button key="send" type="submit" class="round send" aria-label="Send" disabled=${!length || isTooLong}><${SendIcon} /></button>`}
      </div>
      <p class="composer-hint" id=${`${id}-hint`}>
        ${hintFor({ name, length, isTooLong, isTooEarly: isBusy && wasTooEarly })}
      </p>
    </form>`;
}

function hintFor({ name, length, isTooLong, isTooEarly }) {
  if (isTooEarly) return html`<span key="early" role="status">${name} is still answering. Esc stops the reply.</span>`;
  if (length < WARN_FROM) return html`<span key="keys" class="keys">Enter sends, Shift + Enter starts a new line</span>`;
  return html`<span key="length" class=${isTooLong ? "problem-text" : ""}>${length} of ${MOST_SIGNS} characters</span>`;
}

/** What was typed and not sent; a reload keeps it. */
function useDraft(conversationId) {
  const key = `draft.${conversationId}`;
  const [draft, setDraft] = useState(() => perTab.get(key) ?? "");
  const keepDraft = (text) => {
    setDraft(text);
    perTab.set(key, text || null);
  };
  return [draft, keepDraft];
}

function useGrowing(field, text) {
  useLayoutEffect(() => {
    const { style } = field.current;
    style.height = "auto";
    style.height = `${field.current.scrollHeight}px`; // the stylesheet has the upper limit
  }, [text]);
}
