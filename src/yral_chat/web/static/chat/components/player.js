import { html, useEffect, useRef, useState } from "../preact.js";
import { duration } from "../text.js";
import { useFreshAddress } from "./fresh.js";
import { AgainIcon, PauseIcon, PlayIcon } from "./icons.js";

/**
 * Plays a voice note. `seconds` is its length, because recordings of browsers do not say how long they are.
 * `onStale` asks for another address (fresh.js).
 */
export function Player({ url, seconds, onStale }) {
  const { address, attempt, isBroken, onError, again } = useFreshAddress(url, onStale);
  const audio = useRef(null);
  const [isPlaying, setPlaying] = useState(false);
  const [at, setAt] = useState(0);
  const wanted = useRef(false); // to be played on as soon as a fresh address is there
  const length = Math.max(seconds ?? 0, at, 0.1);

  useEffect(() => {
    if (wanted.current && !isBroken) play(audio.current, at);
  }, [address, attempt]);

  const toggle = () => {
    wanted.current = !isPlaying;
    if (isPlaying) audio.current.pause();
    else play(audio.current, at);
  };
  const seek = (event) => {
    setAt(event.currentTarget.valueAsNumber);
    audio.current.currentTime = event.currentTarget.valueAsNumber;
  };
  const ended = () => {
    wanted.current = false;
    setPlaying(false);
    setAt(0);
    audio.current.currentTime = 0;
  };
  if (isBroken) {
    return html`
      <p class="player">This recording does not load.
        <button type="button" class="button small" onClick=${again}><${AgainIcon} /> Try again</button></p>`;
  }
  return html`
    <div class="player" role="group" aria-label="Voice note">
      <button type="button" class="round" aria-label=${isPlaying ? "Pause" : "Play"} onClick=${toggle}>
        ${isPlaying ? html`<${PauseIcon} />` : html`<${PlayIcon} />`}</button>
      <input type="range" min="0" max=${length} step="0.1" value=${at} aria-label="Position"
        aria-valuetext=${`${duration(at)} of ${duration(length)}`} style=${{ "--part": `${(at / length) * 100}%` }} onInput=${seek} />
      <span class="player-time" aria-hidden="true">${duration(at > 0 ? at : length)}</span>
      <audio key=${attempt} ref=${audio} src=${address} preload="none" onError=${onError} onPlay=${() => setPlaying(true)} onPause=${() => setPlaying(false)}
        onTimeUpdate=${(event) => setAt(event.currentTarget.currentTime)} onEnded=${ended}></audio>
    </div>`;
}

async function play(audio, from) {
  for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  if (audio.currentTime !== from) audio.currentTime = from;
  try {
    await audio.play();
  } catch (error) {
    // The element's own error event tells of a file that does not load; a pause in between is nobody's error.
    if (!["NotSupportedError", "AbortError"].includes(error.name)) throw error;
  }
}
