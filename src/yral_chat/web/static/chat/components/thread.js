import { isOffline } from "../answers.js";
import { attach } from "../attachments.js";
import { loadOlder, loadThread, readIfVisible, removeConversation } from "../conversations.js";
import { explain } from "../http.js";
import { refreshMedia } from "../media.js";
import { perTab } from "../memory.js";
import { askAgain, askForPicture, dropPicture } from "../pictures.js";
import { html, useCallback, useEffect, useMemo, useState } from "../preact.js";
import { useStore } from "../store.js";
import { dayName, hueOf } from "../text.js";
import { getThread, isBusy, updateThread } from "../threads.js";
import { canRepeat, discard, regenerate, retry, send, sendAgain, stop } from "../turns.js";
import { Avatar } from "./avatar.js";
import { Bubble, Dots, OutgoingBubble } from "./bubble.js";
import { Composer } from "./composer.js";
import { Confirm } from "./confirm.js";
import { DropArea } from "./dropping.js";
import { History } from "./history.js";
import { BackIcon, BinIcon } from "./icons.js";
import { Making } from "./making.js";
import { Notice } from "./notice.js";

const NOBODY = { id: "", name: "", display_name: "", avatar_url: "", category: "", is_online: false, suggested_messages: null };
const TOGETHER_MS = 5 * 60_000; // messages of one side closer than this are drawn as one group

/** One conversation. */
export function Thread({ id }) {
  const thread = useStore((state) => state.threads[id]) ?? getThread(id);
  const persona = thread.conversation?.influencer ?? NOBODY;
  const description = useStore((state) => state.influencers.items.find((item) => item.id === persona.id)?.description ?? "");
  const isTypingElsewhere = useStore((state) => Boolean(state.typing[id]));
  const [jump, setJump] = useState(0);
  const busy = isBusy(thread);

  useEffect(() => {
    loadThread(id);
  }, [id]);
  useReading(id, thread.messages);
  useStopKey(id, busy);

  const onSend = useCallback((text, media) => { send(id, text, media); setJump((n) => n + 1); }, [id]);
  const onAsk = useCallback((prompt) => { askForPicture(id, prompt); setJump((n) => n + 1); }, [id]);
  const onRetry = useCallback((reply) => { retry(id, reply); setJump((n) => n + 1); }, [id]);
  const onRegenerate = useCallback((reply) => { regenerate(id, reply); setJump((n) => n + 1); }, [id]);
  const onOlder = useCallback(() => loadOlder(id), [id]);
  const onStale = useCallback((messageId, how) => refreshMedia(id, messageId, how), [id]);

  if (thread.status === "missing" || (thread.status === "failed" && !thread.conversation)) {
    return html`<${Absent} thread=${thread} onRetry=${() => loadThread(id)} />`;
  }
  const isStopping = Object.values(thread.live).some((live) => live.isStopping) || thread.outgoing.some((item) => item.isStopping);
  return html`
    <${DropArea} class="thread" style=${{ "--hue": hueOf(persona) }} onFiles=${(files) => attach(id, files)}>
      <${Head} id=${id} persona=${persona} description=${description} isTyping=${busy || isTypingElsewhere} />
      <${OfflineBanner} />
      <${History} topId=${thread.messages[0]?.id} hasOlder=${thread.hasOlder} older=${thread.older} jump=${jump} onOlder=${onOlder}
        label=${`Conversation with ${persona.display_name}`}>
        ${thread.status === "ready" && !thread.hasOlder && html`<${Introduction} persona=${persona} description=${description} />`}
        <${Messages} thread=${thread} persona=${persona} onRetry=${onRetry} onRegenerate=${onRegenerate}
          onStale=${onStale} onAgain=${(key) => sendAgain(id, key)} onDiscard=${(key) => discard(id, key)}
          onAskAgain=${(key) => askAgain(id, key)} onDropPicture=${(key) => dropPicture(id, key)} />
      <//>
      <div class="thread-foot">
        ${thread.notice && html`
          <${Notice} text=${thread.notice} action="Reload" onAction=${() => loadThread(id)}
            onClose=${() => updateThread(id, { notice: "" })} />`}
        ${thread.attachmentProblem && html`
          <${Notice} text=${thread.attachmentProblem} onClose=${() => updateThread(id, { attachmentProblem: "" })} />`}
        <${Suggestions} thread=${thread} persona=${persona} onSend=${onSend} />
        <${Composer} conversationId=${id} name=${persona.display_name} isBusy=${busy} isStopping=${isStopping}
          attachments=${thread.attachments} onSend=${onSend} onAsk=${onAsk} onStop=${() => stop(id)} />
      </div>
    <//>`;
}

/** Tells the service what was seen, when it can be seen. */
function useReading(id, messages) {
  useEffect(() => {
    const read = () => readIfVisible(id);
    read();
    document.addEventListener("visibilitychange", read);
    return () => document.removeEventListener("visibilitychange", read);
  }, [id, messages]);
}

function useStopKey(id, busy) {
  useEffect(() => {
    if (!busy) return undefined;
    const onKeyDown = (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      stop(id);
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [id, busy]);
}

function Head({ id, persona, description, isTyping }) {
  const [isAsking, setAsking] = useState(false);
  const state = isTyping ? "typing…" : persona.is_online ? "online" : "away";
  return html`
    <header class="thread-head">
      <a class="round quiet back" href="#/chats" aria-label="Back to your chats"><${BackIcon} /></a>
      <${Avatar} persona=${persona} isOnline=${persona.is_online} />
      <div class="thread-title">
        <h1>${persona.display_name || "\u00a0"}</h1>
        <p><span class="thread-state ${isTyping ? "typing-text" : ""}">${state}</span>
          ${description && html`<span class="thread-description">${description}</span>`}</p>
      </div>
      <button type="button" class="round quiet" aria-label="Delete this conversation" title="Delete this conversation"
        onClick=${() => setAsking(true)}><${BinIcon} /></button>
      ${isAsking && html`<${Deletion} id=${id} name=${persona.display_name} onClose=${() => setAsking(false)} />`}
    </header>`;
}

function Deletion({ id, name, onClose }) {
  const [isBusyNow, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const remove = async () => {
    setBusy(true);
    try {
      await removeConversation(id);
      location.hash = "#/";
    } catch (error) {
      setProblem(explain(error));
      setBusy(false);
    }
  };
  return html`
    <${Confirm} title=${`Delete the conversation with ${name}?`} text="All its messages are removed for good." action="Delete"
      isBusy=${isBusyNow} problem=${problem} onConfirm=${remove} onClose=${onClose} />`;
}

function OfflineBanner() {
  const [isClosed, setClosed] = useState(() => perTab.get("offline-banner-closed") === true);
  if (isClosed || !isOffline()) return null;
  const close = () => {
    perTab.set("offline-banner-closed", true);
    setClosed(true);
  };
  return html`
    <div class="offline-banner" role="note">
      <p><strong>This is the offline demo persona.</strong> No language model is configured, so the replies are made up from its profile.
        For real ones set <code>GEMINI_API_KEY</code>, or <code>OPENAI_BASE_URL</code> and <code>OPENAI_MODELS</code>, and start the
        service again.</p>
      <button type="button" class="button small quiet" onClick=${close}>Got it</button>
    </div>`;
}

function Introduction({ persona, description }) {
  return html`
    <div class="introduction">
      <${Avatar} persona=${persona} size="large" />
      <p class="introduction-name" aria-hidden="true">${persona.display_name}</p>
      <p class="introduction-text">${description || persona.category}</p>
    </div>`;
}

function Messages({ thread, persona, onRetry, onRegenerate, onStale, onAgain, onDiscard, onAskAgain, onDropPicture }) {
  const { messages, live, outgoing, making } = thread;
  const questions = useMemo(() => new Map(messages.map((message) => [message.id, message])), [messages]);
  const busy = isBusy(thread);
  const newest = messages.at(-1);
  // A picture that is being made stands where its message will.
  const soon = making.length > 0 && outgoing.length === 0 ? { role: "assistant", created_at: new Date() } : null;
  const rows = [];
  messages.forEach((message, index) => {
    if (message.role === "system") {
      rows.push(html`<li key=${message.id} class="day">${message.content}</li>`);
      return;
    }
    const previous = messages[index - 1];
    const isNewDay = !previous || dayName(previous.created_at) !== dayName(message.created_at);
    if (isNewDay) rows.push(html`<li key=${`day-${message.id}`} class="day">${dayName(message.created_at)}</li>`);
    const question = questions.get(message.reply_to);
    const isNewest = message === newest && outgoing.length === 0 && making.length === 0;
    rows.push(html`
      <${Bubble} key=${message.id} message=${message} live=${live[message.id]} persona=${persona}
        isFirst=${isNewDay || !belongTogether(previous, message)} isLast=${!belongTogether(message, messages[index + 1] ?? soon)}
        canRetry=${Boolean(message.error?.retryable) && !busy && (isNewest || (question !== undefined && canRepeat(question)))}
        canRegenerate=${isNewest && message.origin === "model" && !busy} onRetry=${onRetry} onRegenerate=${onRegenerate}
        onStale=${onStale} />`);
  });
  const isWaiting = outgoing.some((item) => item.status === "sending");
  const isMakingFirst = outgoing.length > 0 || !belongTogether(newest, soon);
  return html`
    <ol class="messages">
      ${rows}
      ${outgoing.map((item) => html`<${OutgoingBubble} key=${item.key} item=${item} onAgain=${onAgain} onDiscard=${onDiscard} />`)}
      ${isWaiting && html`
        <li key="waiting" class="message theirs first last">
          <span class="message-avatar"><${Avatar} persona=${persona} size="small" /></span>
          <div class="message-body"><${Dots} name=${persona.display_name} /></div>
        </li>`}
      ${making.map((item, index) => html`
        <${Making} key=${item.key} item=${item} persona=${persona} isFirst=${index === 0 && isMakingFirst} onAgain=${onAskAgain} onDrop=${onDropPicture} />`)}
    </ol>`;
}

function belongTogether(one, other) {
  if (!one || !other || one.role !== other.role) return false;
  return new Date(other.created_at) - new Date(one.created_at) < TOGETHER_MS && dayName(one.created_at) === dayName(other.created_at);
}

/** Ways to begin, until something was said. */
function Suggestions({ thread, persona, onSend }) {
  const hasBegun = thread.outgoing.length > 0 || thread.messages.some((message) => message.role === "user");
  const suggestions = persona.suggested_messages ?? [];
  if (thread.status !== "ready" || hasBegun || suggestions.length === 0) return null;
  return html`
    <div class="suggestions" role="group" aria-label="Suggestions">
      ${suggestions.map((text) => html`<button key=${text} type="button" class="chip" onClick=${() => onSend(text)}>${text}</button>`)}
    </div>`;
}

function Absent({ thread, onRetry }) {
  return html`
    <div class="absent">
      <h1>${thread.status === "missing" ? "This conversation is not here" : "It did not load"}</h1>
      <p>${thread.error}</p>
      <p class="absent-buttons">
        ${thread.status === "failed" && html`<button type="button" class="button primary" onClick=${onRetry}>Try again</button>`}
        <a class="button" href="#/">Choose somebody to talk to</a>
      </p>
    </div>`;
}
