import { attach, takeAttachments } from "../attachments.js";
import { perTab } from "../memory.js";
import { MOST_PROMPT_SIGNS } from "../pictures.js";
import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "../preact.js";
import { Attachments } from "./attachments.js";
import { SendIcon, StopIcon } from "./icons.js";
import { Recorder } from "./recorder.js";
import { Tools } from "./tools.js";

const MOST_SIGNS = 4000; // code points, as the service counts
const WARN_FROM = 3600;

/** Where a message comes to be. onSend(text, {pictures, recording, previews}), onAsk(prompt) for a picture, onStop() */
export function Composer(props) {
  const [isRecording, setRecording] = useState(false);
  const [problem, setProblem] = useState("");
  const close = (reason) => {
    setRecording(false);
    setProblem(reason);
  };
  const sendRecording = (recording, blob) => {
    props.onSend("", { recording, previews: [URL.createObjectURL(blob)] });
    close("");
  };
  if (isRecording) {
    return html`<div class="composer"><${Recorder} isBusy=${props.isBusy} onSend=${sendRecording} onClose=${close} /></div>`;
  }
  return html`<${Writing} ...${props} problem=${problem} setProblem=${setProblem} onRecord=${() => setRecording(true)} />`;
}

function Writing({ conversationId, name, attachments, isBusy, isStopping, problem, setProblem, onSend, onAsk, onRecord, onStop }) {
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

  const deliver = () => {
    const taken = takeAttachments(conversationId);
    const media = { pictures: taken.map((item) => item.stored), previews: taken.map((item) => item.preview) };
    onSend(field.current.value.trim(), media);
    setDraft("");
  };
  const [isAwaiting, setAwaiting] = useAwaiting(attachments, deliver);

  const send = () => {
    if ((!field.current.value.trim() && attachments.length === 0) || isTooLong) return;
    if (attachments.some((item) => item.status === "failed")) {
      setProblem("One picture was not uploaded. Try it again or remove it, then send.");
      return;
    }
    setTooEarly(isBusy);
    if (isBusy) return;
    if (attachments.some((item) => item.status === "uploading")) setAwaiting(true);
    else deliver();
    field.current.focus();
  };

  const ask = () => {
    if (length > MOST_PROMPT_SIGNS) {
      setProblem(`A picture can be described with at most ${MOST_PROMPT_SIGNS} characters.`);
      return;
    }
    onAsk(draft.trim());
    setDraft("");
    setProblem("");
    field.current.focus();
  };

  const onInput = (event) => {
    setDraft(event.currentTarget.value);
    setTooEarly(false);
    setProblem("");
  };

  const onKeyDown = (event) => {
    // Enter that ends the input of a composed character belongs to the input method.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };

  const onPaste = (event) => {
    const { files, types } = event.clipboardData;
    // Word processors put a picture of a text beside the text.
    if (files.length === 0 || types.includes("text/plain")) return;
    event.preventDefault();
    attach(conversationId, files);
  };

  return html`
    <form class="composer" onSubmit=${(event) => { event.preventDefault(); send(); }}>
      <div class="composer-box">
        <${Attachments} conversationId=${conversationId} items=${attachments} />
        <label class="sr-only" for=${id}>Message to ${name}</label>
        <textarea ref=${field} id=${id} rows="1" value=${draft} placeholder=${`Message ${name}`} enterkeyhint="send"
          aria-describedby=${`${id}-hint`} aria-invalid=${isTooLong ? "true" : null}
          onInput=${onInput} onKeyDown=${onKeyDown} onPaste=${onPaste}></textarea>
        <${Tools} name=${name} isBusy=${isBusy} onFiles=${(files) => attach(conversationId, files)} onAsk=${ask} onRecord=${onRecord} />
        ${isBusy
          ? html`<button key="stop" type="button" class="round stop" aria-label="Stop the reply" disabled=${isStopping} onClick=${onStop}><${StopIcon} /></button>`
          : html`<button key="send" type="submit" class="round send" aria-label="Send"
              disabled=${(!length && attachments.length === 0) || isTooLong || isAwaiting}><${SendIcon} /></button>`}
      </div>
      <p class="composer-hint" id=${`${id}-hint`}>
        ${hintFor({ name, length, isTooLong, isTooEarly: isBusy && wasTooEarly, isAwaiting, problem })}
      </p>
    </form>`;
}

function hintFor({ name, length, isTooLong, isTooEarly, isAwaiting, problem }) {
  if (problem) return html`<span key="problem" class="problem-text" role="alert">${problem}</span>`;
  if (isTooEarly) return html`<span key="early" role="status">${name} is still answering. Esc stops the reply.</span>`;
  if (isAwaiting) return html`<span key="awaiting" role="status">This is sent as soon as the upload is done.</span>`;
  if (length < WARN_FROM) return html`<span key="keys" class="keys">Enter sends, Shift + Enter starts a new line</span>`;
  return html`<span key="length" class=${isTooLong ? "problem-text" : ""}>${length} of ${MOST_SIGNS} characters</span>`;
}

/** A message that was sent while its pictures go up leaves when all are there; one that fails holds it back. */
function useAwaiting(attachments, deliver) {
  const [isAwaiting, setAwaiting] = useState(false);
  useEffect(() => {
    if (!isAwaiting || attachments.some((item) => item.status === "uploading")) return;
    setAwaiting(false);
    if (attachments.length > 0 && attachments.every((item) => item.status === "ready")) deliver();
  }, [isAwaiting, attachments]);
  return [isAwaiting, setAwaiting];
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
