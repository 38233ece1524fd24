import { html, useEffect, useLayoutEffect, useRef, useState } from "../preact.js";
import { DownIcon } from "./icons.js";

const NEAR_PX = 80;

/**
 * The scrolling part of a conversation. It stays at the newest message while one is there, and keeps its place when
 * older messages arrive above. `topId` is the id of the oldest message shown; a new `jump` goes to the newest.
 */
export function History({ topId, hasOlder, older, jump, onOlder, label, children }) {
  const box = useRef(null);
  const content = useRef(null);
  const top = useRef(null);
  const place = useRef({ isAtEnd: true, topId: null, height: 0, scrolled: 0 });
  const [isAway, setAway] = useState(false);

  const toEnd = (behavior = "instant") => {
    place.current.isAtEnd = true;
    box.current.scrollTo({ top: box.current.scrollHeight, behavior });
  };
  const note = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    Object.assign(place.current, { isAtEnd, scrolled: scrollTop, height: scrollHeight });
    setAway(!isAtEnd);
  };

  useLayoutEffect(() => {
    const { topId: before, height, scrolled, isAtEnd } = place.current;
    if (before && topId !== before && !isAtEnd) box.current.scrollTop = scrolled + box.current.scrollHeight - height;
    else if (isAtEnd) toEnd();
    Object.assign(place.current, { topId, height: box.current.scrollHeight, scrolled: box.current.scrollTop });
  });
  useLayoutEffect(() => toEnd(), [jump]);
  useEffect(() => {
    // Pictures and the window change heights without a render.
    // The last report may come after the box is gone.
    const observer = new ResizeObserver(() => box.current && place.current.isAtEnd && toEnd());
    observer.observe(content.current);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!hasOlder || older !== "idle") return undefined;
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && onOlder(), {
      root: box.current,
      rootMargin: "400px 0px 0px",
    });
    observer.observe(top.current);
    return () => observer.disconnect();
  }, [hasOlder, older, topId, onOlder]);

  return html`
    <div class="history-frame">
      <div class="history" ref=${box} onScroll=${note} tabindex="0" role="region" aria-label=${label}>
        <div class="history-content" ref=${content}>
          <div class="history-top ${hasOlder ? "has-older" : ""}" ref=${top}>
            ${older === "loading" && html`<p class="aside" role="status">Loading earlier messages…</p>`}
            ${older === "failed" && html`<button type="button" class="button small" onClick=${onOlder}>Load earlier messages</button>`}
          </div>
          ${children}
        </div>
      </div>
      ${isAway && html`
        <button type="button" class="round to-end" aria-label="Go to the newest message" onClick=${() => toEnd("smooth")}><${DownIcon} /></button>`}
    </div>`;
}
