import { html, useEffect, useRef } from "../preact.js";
import { fileOf, useFreshAddress } from "./fresh.js";
import { BackIcon, CloseIcon, ForwardIcon, SaveIcon } from "./icons.js";

/** One of the pictures of a message over the whole window; the browser gives the focus back when it closes. */
export function Lightbox({ urls, index, alt, onStale, onMove, onClose }) {
  const dialog = useRef(null);
  const close = useRef(null);
  useEffect(() => {
    dialog.current.showModal();
    close.current.focus();
  }, []);

  const move = (step) => onMove((index + step + urls.length) % urls.length);
  const onKeyDown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && urls.length > 1) move(step);
  };
  const onClick = (event) => {
    if (!event.target.closest("img, button, a")) dialog.current.close();
  };
  return html`
    <dialog ref=${dialog} class="lightbox" aria-label=${alt} onClose=${onClose} onKeyDown=${onKeyDown} onClick=${onClick}>
      <div class="lightbox-bar">
        <p>${urls.length > 1 && `${index + 1} of ${urls.length}`}</p>
        <a class="round" href=${urls[index]} download=${fileOf(urls[index]).split("/").at(-1)} target="_blank" rel="noopener"
          aria-label="Download" title="Download"><${SaveIcon} /></a>
        <button type="button" ref=${close} class="round" aria-label="Close" title="Close" onClick=${() => dialog.current.close()}><${CloseIcon} /></button>
      </div>
      <div class="lightbox-stage">
        <${Large} key=${fileOf(urls[index])} url=${urls[index]} alt=${alt} onStale=${onStale} />
      </div>
      ${urls.length > 1 && html`
        <button type="button" class="round lightbox-back" aria-label="Previous picture" onClick=${() => move(-1)}><${BackIcon} /></button>
        <button type="button" class="round lightbox-forward" aria-label="Next picture" onClick=${() => move(1)}><${ForwardIcon} /></button>`}
    </dialog>`;
}

function Large({ url, alt, onStale }) {
  const { address, attempt, isBroken, onError } = useFreshAddress(url, onStale);
  if (isBroken) return html`<p role="alert">This picture does not load.</p>`;
  return html`<img key=${attempt} src=${address} alt=${alt} onError=${onError} />`;
}
