// The API, asked. Addresses are relative, so that the page works below a proxy's path as well.

const RFC822 = "message/rfc822";
const PLAIN = "Content-Type: text/plain; charset=utf-8\n\n";
const FIELD = /^[!-9;-~]+:/;
const USUAL =
  /^(from|to|cc|subject|date|received|return-path|delivered-to|message-id|mime-version|content-type|reply-to):/im;
const PATIENCE = 10; // seconds that a retry may be put off
const TRIES = 4;

/** The server's refusal, or its silence (status 0). */
export class Refusal extends Error {
  constructor(status, code, message, wait = null) {
    super(message);
    Object.assign(this, { status, code, wait });
  }
}

/** What was pasted as bytes of a message: text without header lines gets those it needs. */
export function message(pasted) {
  const text = pasted.replace(/^[\r\n]+/, "");
  const head = text.split(/\r?\n\r?\n/, 1)[0];
  const whole = (FIELD.test(text) || text.startsWith("From ")) && USUAL.test(head);
  return { bytes: new Blob([whole ? text : PLAIN + text]), plain: !whole };
}

export class Api {
  token = "";

  classify = (bytes, signal) => this.#ask("v1/classify/raw", bytes, signal);
  explain = (bytes, signal) => this.#ask("v1/explain", bytes, signal);
  drift = (signal) => this.#ask("v1/drift", null, signal);
  models = (signal) => this.#ask("v1/models", null, signal);
  card = (name, signal) => this.#ask(`v1/models/${encodeURIComponent(name)}/card`, null, signal);

  /** As `classify`, but it waits where the server is busy. */
  async patient(bytes, signal) {
    for (let tries = 1; ; tries++) {
      try {
        return await this.classify(bytes, signal);
      } catch (error) {
        const busy = error instanceof Refusal && error.status === 429 && error.wait <= PATIENCE;
        if (!busy || tries === TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1000 * (error.wait ?? 1)));
        signal.throwIfAborted();
      }
    }
  }

  async #ask(path, bytes, signal) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    if (bytes) headers["Content-Type"] = RFC822;
    let response, answer;
    try {
      response = await fetch(path, {
        method: bytes ? "POST" : "GET", body: bytes, headers, signal,
        credentials: "omit", cache: "no-store", redirect: "error",
      });
      answer = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      throw new Refusal(0, "silent", error.message);
    }
    let tree = null;
    try {
      tree = JSON.parse(answer);
    } catch {
      // Told below: a proxy, say, answers in its own words.
    }
    if (response.ok && tree !== null) return tree;
    const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
    const { code = "", message = "" } = tree?.error ?? {};
    throw new Refusal(response.status, code, message, Number.isFinite(wait) ? wait : null);
  }
}

const MEANINGS = {
  0: "The server does not answer, or broke off; it may be down, or the mail too large for it.",
  400: "This is no mail that can be read.",
  401: "The server wants a token that it knows.",
  403: "This may not be asked here, or not with this token.",
  404: "This server cannot do that.",
  413: "This mail is too large for the server.",
  415: "The server does not read this kind of file.",
  422: "The server does not understand the mail.",
  429: "The server has as much to do as it takes on.",
  500: "The server has a fault; its log says more.",
  501: "This server cannot do that.",
  503: "The server is starting, or shutting down.",
  504: "The server was not done in time.",
};

/** What went wrong, in words, with the server's own. */
export function words(error) {
  if (!(error instanceof Refusal)) return `The page has a fault: ${error.message}`;
  const { status, message, wait } = error;
  const meaning = MEANINGS[status] ?? `The server refused (${status}).`;
  const own = status && message ? ` It says: ${message}.`.replace(/[.!?]\.$/, ".") : "";
  const later = wait === null ? "" : ` Try again in ${wait === 1 ? "a second" : `${wait} seconds`}.`;
  return meaning + own + later;
}
