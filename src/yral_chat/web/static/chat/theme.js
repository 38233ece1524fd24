const KEY = "yral.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

export function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Storage is blocked: the choice lasts until reload.
  }
}

export function onSystemTheme(listener) {
  system.addEventListener("change", listener);
  listener(); // it may have changed since something was drawn
  return () => system.removeEventListener("change", listener);
}
