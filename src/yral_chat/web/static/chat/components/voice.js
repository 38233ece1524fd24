import { html } from "../preact.js";
import { Player } from "./player.js";

/** A recording with what was said in it. */
export function Voice({ url, seconds, transcription, onStale }) {
  return html`
    <div class="bubble voice">
      <${Player} url=${url} seconds=${seconds} onStale=${onStale} />
      ${transcription && html`<p class="transcription"><span class="sr-only">What was said: </span>${transcription}</p>`}
    </div>`;
}
