// Not a module, and in the head: the chosen theme must be known before the first paint.
try {
  const theme = localStorage.getItem("yral.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked: the system's theme applies.
}
