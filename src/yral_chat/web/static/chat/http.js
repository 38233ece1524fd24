// One request to this service: a Response, or an error that says what a person can do about it.

// The page's own folder, so that the service may live under a path of a bigger site.
const base = new URL("./", location.href.split("#")[0]);

export function address(path) {
  return new URL(path, base);
}

/** The service refused. Fields as in its error envelope; `retryAfter` in seconds or null. */
export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body.message || `The service answered ${status}.`);
    this.status = status;
    this.code = body.error || "";
    this.details = body.details || {};
    this.retryAfter = retryAfter;
  }

  static async from(response) {
    const body = await response.json().catch(() => ({}));
    const seconds = Number.parseInt(response.headers.get("Retry-After"), 10);
    return new ApiError(response.status, body, Number.isNaN(seconds) ? null : seconds);
  }

  /** Nothing was stored, and the same request may be welcome in a moment. */
  get isTemporary() {
    if (this.details.user_message) return false;
    return [502, 504].includes(this.status) || ["service_unavailable", "overloaded"].includes(this.code);
  }
}

/** No answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The service cannot be reached. Check your connection and try again.");
  }

  get isTemporary() {
    return true;
  }
}

export async function request(path, { method = "GET", body, headers = {}, signal } = {}) {
  const init = { method, headers: { ...headers }, signal };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(address(path), init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (!response.ok) throw await ApiError.from(response);
  return response;
}

/** The sentence to show for an error. */
export function explain(error) {
  if (error.code === "rate_limit_exceeded" && error.details.limit_type === "concurrent_turns") {
    return "Several replies are still being written. Wait for one of them, or stop it, and send this again.";
  }
  if (error.code === "rate_limit_exceeded" || error.code === "overloaded") {
    const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : " Try again in a moment.";
    return `That was a little too much at once.${wait}`;
  }
  if (error instanceof ApiError || error instanceof Unreachable) return error.message;
  console.error(error);
  return "Something went wrong on this page.";
}
