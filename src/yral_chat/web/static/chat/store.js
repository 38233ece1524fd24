// What the page knows, in one immutable object. Actions replace parts of it; components select from it.

import { useLayoutEffect, useReducer, useRef } from "./preact.js";

const EMPTY = {
  // "starting", "signed-in", "signed-out", "unreachable"
  session: { status: "starting", userId: null, canIssue: false, notice: "" },
  // "loading", "ready", "failed"
  influencers: { status: "loading", items: [], error: "" },
  inbox: { status: "loading", items: [], hasMore: false, error: "" },
  threads: {},
  typing: {}, // conversation id -> true
  isConnected: true, // the inbox socket
  announcement: "", // for screen readers
};

let state = EMPTY;
const listeners = new Set();

export function getState() {
  return state;
}

/** Merges `change`, or what `change(state)` returns, into the state. */
export function update(change) {
  state = { ...state, ...(typeof change === "function" ? change(state) : change) };
  for (const listener of [...listeners]) listener();
}

/** Forgets everything that belongs to the person who signed out. */
export function resetState() {
  update({ ...EMPTY, session: state.session });
}

export function updateSession(change) {
  update((now) => ({ session: { ...now.session, ...change } }));
}

export function updateInfluencers(change) {
  update((now) => ({ influencers: { ...now.influencers, ...change } }));
}

/** `change` is an object or a function of the inbox. */
export function updateInbox(change) {
  update((now) => ({ inbox: { ...now.inbox, ...(typeof change === "function" ? change(now.inbox) : change) } }));
}

export function announce(text) {
  update({ announcement: text });
}

/** Redraws the calling component when what it selects is another value. */
export function useStore(select) {
  const [, redraw] = useReducer((count) => count + 1, 0);
  const latest = useRef(null);
  const value = select(state);
  latest.current = { select, value };
  useLayoutEffect(() => {
    const check = () => {
      if (latest.current.select(state) !== latest.current.value) redraw();
    };
    check(); // the state may have changed between the render and now
    listeners.add(check);
    return () => listeners.delete(check);
  }, []);
  return value;
}
