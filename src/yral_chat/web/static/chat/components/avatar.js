import { html, useState } from "../preact.js";
import { hueOf, initials } from "../text.js";

/** A persona's picture, or its initials where there is none. Decorative: the name always stands beside it. */
export function Avatar({ persona, isOnline, size = "medium" }) {
  const [broken, setBroken] = useState(null);
  const url = persona.avatar_url;
  return html`
    <span class="avatar ${size}" style=${{ "--hue": hueOf(persona) }}>
      ${url && broken !== url
        ? html`<img src=${url} alt="" loading="lazy" decoding="async" onError=${() => setBroken(url)} />`
        : html`<span class="initials" aria-hidden="true">${initials(persona.display_name)}</span>`}
      ${isOnline && html`<span class="online-dot"></span>`}
    </span>`;
}
