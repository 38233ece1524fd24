import { explain } from "../http.js";
import { html, useEffect, useId, useRef, useState } from "../preact.js";
import { isNotIssuing, signInAs, signInWithToken, suggestedUser } from "../session.js";
import { Mark } from "./icons.js";

/** The door: a guest's name in development, a pasted token elsewhere. */
export function SignIn({ canIssue, notice, onSignedIn, onNotIssuing }) {
  const [problem, setProblem] = useState(notice);
  const [isBusy, setBusy] = useState(false);
  useEffect(() => setProblem(notice), [notice]);

  const attempt = async (signIn) => {
    setBusy(true);
    setProblem("");
    try {
      await signIn();
      onSignedIn();
    } catch (error) {
      if (canIssue && isNotIssuing(error)) onNotIssuing();
      else setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  };

  return html`
    <main class="door" id="main">
      <div class="door-card">
        <${Mark} />
        <h1>${canIssue ? "Come in" : "Sign in"}</h1>
        ${problem && html`<p class="problem-text" role="alert">${problem}</p>`}
        ${canIssue
          ? html`<${GuestForm} isBusy=${isBusy} attempt=${attempt} />`
          : html`<${TokenForm} isBusy=${isBusy} attempt=${attempt} />`}
      </div>
    </main>`;
}

function GuestForm({ isBusy, attempt }) {
  const [user, setUser] = useState(suggestedUser);
  return html`
    <${DoorForm} label="Your user id" isBusy=${isBusy} button="Continue" isEmpty=${!user.trim()}
      hint="This service runs in development: any name will do, and the same name finds the same conversations."
      onSubmit=${() => attempt(() => signInAs(user.trim()))}
      field=${(attributes) => html`
        <input ...${attributes} type="text" value=${user} maxlength="255" autocomplete="username" spellcheck="false"
          onInput=${(event) => setUser(event.currentTarget.value)} />`} />`;
}

function TokenForm({ isBusy, attempt }) {
  const [token, setToken] = useState("");
  return html`
    <${DoorForm} label="Access token" isBusy=${isBusy} button="Sign in" isEmpty=${!token.trim()}
      hint="Paste the token of your account. It stays in this tab and is forgotten when you close it."
      onSubmit=${() => attempt(() => signInWithToken(token))}
      field=${(attributes) => html`
        <textarea ...${attributes} rows="5" value=${token} autocomplete="off" autocapitalize="off" spellcheck="false" placeholder="eyJ…"
          onInput=${(event) => setToken(event.currentTarget.value)} onKeyDown=${submitOnEnter}></textarea>`} />`;
}

function submitOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey) return;
  event.preventDefault();
  event.currentTarget.form.requestSubmit();
}

function DoorForm({ label, hint, button, isBusy, isEmpty, onSubmit, field }) {
  const id = useId();
  const form = useRef(null);
  useEffect(() => form.current.elements[0].focus(), []);
  const submit = (event) => {
    event.preventDefault();
    if (!isEmpty && !isBusy) onSubmit();
  };
  return html`
    <form ref=${form} onSubmit=${submit}>
      <label for=${id}>${label}</label>
      ${field({ id, "aria-describedby": `${id}-hint` })}
      <p class="hint" id=${`${id}-hint`}>${hint}</p>
      <button type="submit" class="button primary wide" disabled=${isBusy || isEmpty}>${isBusy ? "One moment…" : button}</button>
    </form>`;
}
