import { html } from "../preact.js";

function icon(path, filled = false) {
  return () => html`
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" fill=${filled ? "currentColor" : "none"} stroke="currentColor"
      stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"><path d=${path} /></svg>`;
}

export const BackIcon = icon("M15 5l-7 7 7 7");
export const CloseIcon = icon("M6 6l12 12M18 6L6 18");
export const ForwardIcon = icon("M9 5l7 7-7 7");
export const DownIcon = icon("M12 5v14M6 13l6 6 6-6");
export const SendIcon = icon("M12 19V5M6 11l6-6 6 6");
export const StopIcon = icon("M7 7h10v10H7z", true);
export const PlayIcon = icon("M8 5.5v13l10.5-6.5z", true);
export const PauseIcon = icon("M8 6h2v12H8zM14 6h2v12h-2z", true);
export const AttachIcon = icon("M20 11.3l-8.3 8.3a5 5 0 0 1-7.1-7.1l8.4-8.3a3.3 3.3 0 0 1 4.7 4.7l-8.4 8.3a1.7 1.7 0 0 1-2.4-2.4l7.7-7.6");
export const PictureIcon = icon("M5 4h14a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zM4 16.5l4.5-4.5 4 4 2.5-2.5 5 5M15.5 9.3a.8.8 0 1 0 0-1.6.8.8 0 0 0 0 1.6z");
export const SparkleIcon = icon("M11 4l1.7 4.8 4.8 1.7-4.8 1.7L11 17l-1.7-4.8-4.8-1.7 4.8-1.7zM18.5 15.5v5M16 18h5");
export const MicrophoneIcon = icon("M12 15.5a3.3 3.3 0 0 0 3.3-3.3V6.8a3.3 3.3 0 0 0-6.6 0v5.4a3.3 3.3 0 0 0 3.3 3.3zM5.5 12a6.5 6.5 0 0 0 13 0M12 18.5V21");
export const SaveIcon = icon("M12 4v11M7 10.5l5 5 5-5M5 20h14");
export const AgainIcon = icon("M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6");
export const BinIcon = icon("M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5");
export const SearchIcon = icon("M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4");
export const SunIcon = icon("M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4");
export const MoonIcon = icon("M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z");
export const PeopleIcon = icon("M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 20c1.5-3.6 4.4-5 8-5s6.5 1.4 8 5");
export const ChatsIcon = icon("M21 11.5c0 4.2-4 7.5-9 7.5-1.2 0-2.4-.2-3.4-.5L4 20l1-3.6c-1.3-1.3-2-3-2-4.9C3 7.3 7 4 12 4s9 3.3 9 7.5z");
export const LeaveIcon = icon("M14 4h5v16h-5M10 8l-4 4 4 4M6 12h10");

export function Mark() {
  return html`
    <svg class="mark" viewBox="0 0 64 64" aria-hidden="true">
      <path class="mark-body" d="M32 4C16 4 4 15.2 4 29.5 4 38 8.4 45.4 15.4 50l-1.7 8.3c-.3 1.4 1.2 2.5 2.4 1.8l9.7-5.5c2 .3 4.1.4 6.2.4 16 0 28-11.2 28-25.5S48 4 32 4z" />
      <path class="mark-letter" d="M22 19l10 12 10-12M32 31v11" />
      <circle class="mark-dot" cx="50" cy="12" r="9" />
    </svg>`;
}
