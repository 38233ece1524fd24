import { explain } from "../http.js";
import { useReducer, useRef } from "../preact.js";

/** What an address leads to, whatever its signature. */
export function fileOf(url) {
  return url.split("?")[0];
}

/**
 * Each fetch of a message signs its addresses anew. The first one stays in use until it fails, so that nothing is loaded
 * twice; then `refresh()` is asked for another, and resolves to whether another try is worth it. `attempt` counts the tries:
 * it is the key of the element, for the address may be the same.
 * @returns {{address: string, attempt: number, isBroken: boolean, onError: function, again: function}}
 */
export function useFreshAddress(url, refresh) {
  const [, redraw] = useReducer((count) => count + 1, 0);
  const latest = useRef(url);
  latest.current = url;
  const { current: now } = useRef({ address: url, failed: null, attempt: 0, isBroken: false });
  const isReplaced = now.failed === now.address && url !== now.address;
  if (isReplaced || fileOf(url) !== fileOf(now.address)) Object.assign(now, { address: url, isBroken: false });

  const ask = async (how) => {
    const isWorthIt = await refresh(how).catch((error) => {
      console.warn(explain(error));
      return false;
    });
    now.isBroken = !isWorthIt;
    now.attempt += 1;
    redraw();
  };
  const onError = () => {
    now.failed = now.address;
    if (latest.current === now.address) ask({ isAsked: false });
    else redraw();
  };
  const { address, attempt, isBroken } = now;
  return { address, attempt, isBroken, onError, again: () => ask({ isAsked: true }) };
}
