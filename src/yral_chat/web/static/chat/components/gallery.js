import { loadInfluencers, openWith } from "../conversations.js";
import { explain } from "../http.js";
import { html, memo, useCallback, useMemo, useState } from "../preact.js";
import { conversationHash } from "../route.js";
import { useStore } from "../store.js";
import { count, hueOf } from "../text.js";
import { Avatar } from "./avatar.js";
import { SearchIcon } from "./icons.js";
import { Notice } from "./notice.js";

/** Everybody one can talk to. */
export function Gallery() {
  const { items, status, error } = useStore((state) => state.influencers);
  const [query, setQuery] = useState("");
  const [category, setCategory] = useState("");
  const [opening, setOpening] = useState(null);
  const [problem, setProblem] = useState(null);

  const open = useCallback(async (influencer) => {
    setOpening(influencer.id);
    setProblem(null);
    try {
      location.hash = conversationHash(await openWith(influencer.id));
    } catch (failure) {
      setProblem({ text: explain(failure), influencer });
    } finally {
      setOpening(null);
    }
  }, []);

  const categories = useMemo(() => [...new Set(items.map((item) => item.category).filter(Boolean))].sort(), [items]);
  const chosen = categories.includes(category) ? category : "";
  const shown = useMemo(() => items.filter((item) => matches(item, query, chosen)), [items, query, chosen]);

  return html`
    <div class="gallery">
      <header class="gallery-head">
        <h1>Who would you like<br /> to talk to?</h1>
        <${Search} query=${query} onChange=${setQuery} />
      </header>
      <${Categories} categories=${categories} chosen=${chosen} onChoose=${setCategory} />
      ${problem && html`<${Notice} text=${problem.text} action="Try again" onAction=${() => open(problem.influencer)} />`}
      ${error && html`<${Notice} text=${error} action="Try again" onAction=${loadInfluencers} />`}
      <p class="sr-only" role="status">${status === "ready" ? count(shown.length, "persona", "personas") : ""}</p>
      ${status === "loading" && items.length === 0
        ? html`<div class="cards" aria-hidden="true">${[1, 2, 3, 4, 5, 6].map((n) => html`<div key=${n} class="card ghost"></div>`)}</div>`
        : html`
          <ul class="cards" aria-label="Personas">
            ${shown.map((item) => html`
              <${Card} key=${item.id} influencer=${item} isOpening=${opening === item.id} onOpen=${open} />`)}
          </ul>`}
      ${status === "ready" && shown.length === 0 && html`
        <p class="empty">${items.length ? "Nobody fits that search." : "There is nobody to talk to yet. Add personas through the API."}</p>`}
    </div>`;
}

function matches(influencer, query, category) {
  if (category && influencer.category !== category) return false;
  const text = [influencer.display_name, influencer.name, influencer.category, influencer.description].join(" ").toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function Search({ query, onChange }) {
  return html`
    <label class="search">
      <span class="sr-only">Search personas</span>
      <${SearchIcon} />
      <input type="search" value=${query} placeholder="Search by name or topic" autocomplete="off" enterkeyhint="search"
        onInput=${(event) => onChange(event.currentTarget.value)}
        onKeyDown=${(event) => event.key === "Escape" && onChange("")} />
    </label>`;
}

function Categories({ categories, chosen, onChoose }) {
  if (categories.length < 2) return null;
  const chip = (value, text) => html`
    <button key=${value} type="button" class="chip" aria-pressed=${String(chosen === value)} onClick=${() => onChoose(value)}>${text}</button>`;
  return html`
    <div class="chips" role="group" aria-label="Filter by category">
      ${chip("", "All")} ${categories.map((value) => chip(value, value))}
    </div>`;
}

const Card = memo(({ influencer, isOpening, onOpen }) => html`
  <li class="card" style=${{ "--hue": hueOf(influencer) }}>
    <button type="button" class="card-button" aria-busy=${String(isOpening)} disabled=${isOpening} onClick=${() => onOpen(influencer)}>
      <${Avatar} persona=${influencer} size="portrait" />
      <span class="card-text">
        <span class="card-category">${influencer.category}</span>
        <span class="card-name">${influencer.display_name}</span>
        <span class="card-description">${influencer.description}</span>
        <span class="card-facts">
          ${influencer.is_active === "coming_soon" && html`<span class="tag">Coming soon</span>`}
          ${influencer.is_nsfw && html`<span class="tag">18+</span>`}
          ${influencer.message_count > 0 && html`<span>${count(influencer.message_count, "message", "messages")}</span>`}
        </span>
      </span>
    </button>
  </li>`);
