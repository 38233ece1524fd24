// The inbox socket: what happens elsewhere, as it happens. It reconnects by itself and asks for what it missed.

import { inboxAddress } from "./api.js";
import { freshToken, replaceToken } from "./session.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const PING_EVERY_MS = 30_000;
const PONG_WITHIN_MS = 10_000;

// Close codes of the API contract.
const TOKEN_REFUSED = 4001;
const REPLACED = 4008;
const RATE_LIMITED = 4029;

export class InboxSocket {
  #socket = null;
  #since = null;
  #failures = 0;
  #timer = null;
  #pulse = null;
  #wasOpen = false;
  #isStopped = false;

  /** handlers: onEvent(name, data), onOpen(isFirst), onState(isConnected) */
  constructor(userId, handlers) {
    this.userId = userId;
    this.handlers = handlers;
    this.wake = () => {
      if (document.visibilityState === "visible" && !this.#socket) this.#connectNow();
    };
    addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
    addEventListener("focus", this.wake);
    this.#connectNow();
  }

  stop() {
    this.#isStopped = true;
    removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    removeEventListener("focus", this.wake);
    clearTimeout(this.#timer);
    clearTimeout(this.#pulse);
    this.#socket?.close(1000);
  }

  async #connectNow() {
    clearTimeout(this.#timer);
    let token;
    try {
      token = await freshToken();
    } catch {
      this.#retryLater(); // the service cannot be reached; a refused token ends the session by itself
      return;
    }
    if (this.#isStopped || this.#socket) return;
    // The token goes into the handshake's protocol list: addresses end up in logs.
    const socket = new WebSocket(inboxAddress(this.userId, this.#since), ["bearer", token]);
    this.#socket = socket;
    let isOpen = false;
    socket.onmessage = ({ data }) => {
      if (!isOpen) return;
      this.#heard(data);
    };
    socket.onopen = () => {
      isOpen = true;
      this.handlers.onState(true);
      this.handlers.onOpen(!this.#wasOpen);
      this.#wasOpen = true;
      this.#keepAlive();
    };
    socket.onclose = (event) => this.#closed(socket, token, event);
  }

  #heard(data) {
    this.#failures = 0;
    this.#keepAlive();
    if (data === "pong") return;
    const { event, seq, data: body } = JSON.parse(data);
    if (Number.isInteger(seq)) this.#since = Math.max(seq, this.#since ?? 0);
    this.handlers.onEvent(event, body);
  }

  #keepAlive() {
    clearTimeout(this.#pulse);
    this.#pulse = setTimeout(() => {
      this.#socket?.send("ping");
      // A dead connection can look open for minutes.
      this.#pulse = setTimeout(() => this.#abandon(), PONG_WITHIN_MS);
    }, PING_EVERY_MS);
  }

  #abandon() {
    const socket = this.#socket;
    if (!socket) return;
    socket.onclose = null;
    socket.close();
    this.#closed(socket, null, { code: 0, reason: "" });
  }

  async #closed(socket, token, { code, reason }) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    clearTimeout(this.#pulse);
    if (this.#isStopped) return;
    this.handlers.onState(false);
    if (code === TOKEN_REFUSED) {
      const isReplaced = await replaceToken(token, reason).catch(() => true);
      if (!isReplaced) return;
    }
    // Too many windows of one person: this one comes back when it is looked at, or the windows would evict each other.
    if (code === REPLACED) return;
    if (code === RATE_LIMITED) this.#failures = Math.max(this.#failures, 5);
    this.#retryLater();
  }

  #retryLater() {
    if (this.#isStopped) return;
    clearTimeout(this.#timer);
    const wait = Math.min(FIRST_WAIT_MS * 2 ** this.#failures, LONGEST_WAIT_MS);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#connectNow(), wait * (0.75 + Math.random() / 2));
  }
}
