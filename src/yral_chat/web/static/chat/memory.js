// What the browser remembers. Storage may be full or blocked; then the page forgets at reload and works otherwise.

function remember(area) {
  return {
    get(key) {
      try {
        return JSON.parse(window[area].getItem(`yral.${key}`));
      } catch {
        return null;
      }
    },
    set(key, value) {
      try {
        if (value === null) window[area].removeItem(`yral.${key}`);
        else window[area].setItem(`yral.${key}`, JSON.stringify(value));
      } catch {
        // See above.
      }
    },
  };
}

/** Survives the window: the guest's name. */
export const longTerm = remember("localStorage");

/** Lives as long as the tab and its reloads: a pasted token, messages on their way. */
export const perTab = remember("sessionStorage");
