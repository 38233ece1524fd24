// Which model answered. Only the end of a stream says so, hence this tab remembers it for its reloads.

import { perTab } from "./memory.js";

const MOST = 300;
const answers = new Map(perTab.get("answers") ?? []);

export function rememberAnswer(messageId, { provider, model }) {
  answers.delete(messageId);
  answers.set(messageId, { provider, model });
  for (const oldest of answers.keys()) {
    if (answers.size <= MOST) break;
    answers.delete(oldest);
  }
  perTab.set("answers", [...answers]);
}

/** True when the last reply this tab saw came from the demo that needs no model. */
export function isOffline() {
  return [...answers.values()].at(-1)?.provider === "offline";
}

/** `{provider, model}`, or undefined when this tab did not see the reply end. */
export function answerOf(messageId) {
  return answers.get(messageId);
}
