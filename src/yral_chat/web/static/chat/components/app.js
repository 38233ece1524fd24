import { html, useEffect, useReducer, useRef, useState } from "../preact.js";
import { route } from "../route.js";
import { useStore } from "../store.js";
import { isDark, onSystemTheme, toggleTheme } from "../theme.js";
import { Gallery } from "./gallery.js";
import { ChatsIcon, LeaveIcon, Mark, MoonIcon, PeopleIcon, SunIcon } from "./icons.js";
import { Inbox } from "./inbox.js";
import { Notice } from "./notice.js";
import { SignIn } from "./sign-in.js";
import { Thread } from "./thread.js";

/** actions: onSignedIn(), onSignOut(), onNotIssuing(), onStart() */
export function App({ actions }) {
  const session = useStore((state) => state.session);
  if (session.status === "starting") return html`<div class="door" aria-busy="true"><${Mark} /></div>`;
  if (session.status === "unreachable") {
    return html`<main class="door"><div class="door-card"><${Mark} />
      <${Notice} text=${session.notice} action="Try again" onAction=${actions.onStart} /></div></main>`;
  }
  if (session.status === "signed-out") {
    return html`<${SignIn} canIssue=${session.canIssue} notice=${session.notice} onSignedIn=${actions.onSignedIn}
      onNotIssuing=${actions.onNotIssuing} />`;
  }
  return html`<${Shell} session=${session} onSignOut=${actions.onSignOut} />`;
}

function Shell({ session, onSignOut }) {
  const here = useRoute();
  const unread = useStore((state) => state.inbox.items.reduce((sum, item) => sum + item.unread_count, 0));
  const announcement = useStore((state) => state.announcement);
  const main = useRef(null);
  useTitle(here, unread);
  useFocusAfterMoving(here, main);
  return html`
    <div class="shell" data-view=${here.view}>
      <button type="button" class="skip" onClick=${() => skipTo(main.current)}>Skip to the content</button>
      <nav class="sidebar" aria-label="Your chats">
        <header class="sidebar-head">
          <a class="brand" href="#/"><${Mark} /><span>Yral</span></a>
          <a class="button small discover" href="#/" aria-current=${here.view === "personas" ? "page" : null}>New chat</a>
          <${ThemeButton} />
        </header>
        <${Inbox} currentId=${here.conversationId} />
        <${Connection} />
        <footer class="sidebar-foot">
          <span class="who" title=${session.userId}>${session.userId}</span>
          <button type="button" class="round quiet" aria-label="Sign out" title="Sign out" onClick=${onSignOut}><${LeaveIcon} /></button>
        </footer>
      </nav>
      <main ref=${main} class="main" id="main" tabindex="-1">
        ${here.view === "conversation"
          ? html`<${Thread} key=${here.conversationId} id=${here.conversationId} />`
          : html`<${Gallery} />`}
      </main>
      <${Tabs} here=${here} unread=${unread} />
      <div class="sr-only" role="status" aria-live="polite">${announcement}</div>
    </div>`;
}

function skipTo(main) {
  (main.querySelector("textarea, input") ?? main).focus();
}

function useRoute() {
  const [here, setHere] = useState(() => route());
  useEffect(() => {
    const follow = () => setHere(route());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return here;
}

/** Whoever moved by keyboard or screen reader would otherwise start again at the top of the page. */
function useFocusAfterMoving({ view, conversationId }, main) {
  const isFirst = useRef(true);
  useEffect(() => {
    const isLost = document.activeElement === null || document.activeElement === document.body;
    if (isLost && !isFirst.current) main.current.focus();
    isFirst.current = false;
  }, [view, conversationId]);
}

function useTitle({ conversationId }, unread) {
  const name = useStore((state) => state.threads[conversationId]?.conversation?.influencer?.display_name);
  useEffect(() => {
    document.title = `${unread ? `(${unread}) ` : ""}${name ? `${name} · ` : ""}Yral AI Chat`;
  }, [name, unread]);
}

function ThemeButton() {
  const [, redraw] = useReducer((n) => n + 1, 0);
  useEffect(() => onSystemTheme(redraw), []);
  const dark = isDark();
  const label = dark ? "Switch to the light theme" : "Switch to the dark theme";
  const toggle = () => {
    toggleTheme();
    redraw();
  };
  return html`
    <button type="button" class="round quiet" aria-label=${label} title=${label} onClick=${toggle}>
      ${dark ? html`<${SunIcon} />` : html`<${MoonIcon} />`}</button>`;
}

function Connection() {
  const isConnected = useStore((state) => state.isConnected);
  return html`<p class="connection" role="status">${isConnected ? "" : "Reconnecting to live updates…"}</p>`;
}

/** A phone shows one thing at a time. */
function Tabs({ here, unread }) {
  const tab = (view, hash, Icon, text, badge) => html`
    <a class="tab" href=${hash} aria-current=${here.view === view ? "page" : null}>
      <span class="tab-icon"><${Icon} />${badge > 0 && html`<span class="badge">${badge > 99 ? "99+" : badge}</span>`}</span>${text}</a>`;
  return html`
    <nav class="tabs" aria-label="Views">
      ${tab("personas", "#/", PeopleIcon, "Discover", 0)} ${tab("chats", "#/chats", ChatsIcon, "Chats", unread)}
    </nav>`;
}
