import { html, useState } from "../preact.js";
import { fileOf, useFreshAddress } from "./fresh.js";
import { PictureIcon } from "./icons.js";
import { Lightbox } from "./lightbox.js";

/** The pictures of one message. `sender` as in "Picture from Leela"; `previews` are shown until the service's copies are there. */
export function Pictures({ urls, previews = [], sender, onStale }) {
  const [open, setOpen] = useState(null);
  if (urls.length === 0) return null;
  const alt = (index) => (urls.length === 1 ? `Picture from ${sender}` : `Picture ${index + 1} of ${urls.length} from ${sender}`);
  return html`
    <div class="pictures ${arrangement(urls.length)}">
      ${urls.map((url, index) => html`
        <${Picture} key=${fileOf(url)} url=${url} preview=${previews[index]} alt=${alt(index)} onStale=${onStale}
          onOpen=${() => setOpen(index)} />`)}
      ${open !== null && html`
        <${Lightbox} urls=${urls} index=${open} alt=${alt(open)} onStale=${onStale} onMove=${setOpen} onClose=${() => setOpen(null)} />`}
    </div>`;
}

function arrangement(count) {
  if (count === 1) return "one";
  return count === 2 || count === 4 ? "two-wide" : "three-wide";
}

function Picture({ url, preview, alt, onStale, onOpen }) {
  const { address, attempt, isBroken, onError, again } = useFreshAddress(url, onStale);
  const [isLoaded, setLoaded] = useState(false);
  if (isBroken) {
    return html`
      <button type="button" class="picture broken" onClick=${again}>
        <${PictureIcon} /><span>This picture does not load.<br />Try again</span></button>`;
  }
  return html`
    <button type="button" class="picture ${isLoaded || preview ? "" : "ghost"}" aria-haspopup="dialog" onClick=${onOpen}
      style=${{ backgroundImage: preview ? `url("${preview}")` : "" }}>
      <img key=${attempt} class=${isLoaded ? "loaded" : ""} src=${address} alt=${alt} loading="lazy" decoding="async"
        onLoad=${() => setLoaded(true)} onError=${onError} />
      <span class="sr-only">, open large</span>
    </button>`;
}
