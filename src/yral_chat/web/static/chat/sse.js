// Server-sent events out of a fetch, because EventSource can neither POST nor carry a token.
// The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

import { Unreachable } from "./http.js";

// The service sends a heartbeat every 10 s; a stream silent for this long is dead, whatever the socket says.
const SILENCE_MS = 35_000;
const CLOSE_WITHIN_MS = 1_000;

/** Yields `{name, id, data}` with `data` parsed; ends when the stream ends. Throws Unreachable when it breaks. */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read());
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    // Not at once: after its last event the service closes the stream itself, and leaving earlier looks like an abort.
    setTimeout(() => reader.cancel().catch(() => {}), CLOSE_WITHIN_MS);
  }
}

async function withinSilence(read) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(reject, SILENCE_MS);
  });
  try {
    return await Promise.race([read, silence]);
  } catch {
    throw new Unreachable();
  } finally {
    clearTimeout(timer);
  }
}

export class EventParser {
  #rest = "";
  #name = "";
  #id = "";
  #data = [];

  /** Takes text cut anywhere and yields the events that are complete. */
  *push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line !== "") {
        this.#field(line);
        continue;
      }
      if (this.#data.length) yield this.#take();
      this.#name = "";
    }
  }

  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a heartbeat
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#name = value;
    else if (field === "id") this.#id = value;
  }

  #take() {
    const event = { name: this.#name || "message", id: this.#id, data: JSON.parse(this.#data.join("\n")) };
    this.#data = [];
    return event;
  }
}
