// Pictures that the persona was asked for and that are not there yet. The service makes each once, whatever happens to this page.

import * as api from "./api.js";
import { explain } from "./http.js";
import { newKey } from "./ids.js";
import { noteLastMessage } from "./inbox.js";
import { perTab } from "./memory.js";
import { announce, getState } from "./store.js";
import { getThread, updateThread, upsertMessages } from "./threads.js";

export const MOST_PROMPT_SIGNS = 1000; // code points, as the service counts

/** Asks for a picture of what `prompt` says; without one it is taken from the conversation. */
export function askForPicture(conversationId, prompt) {
  return ask(conversationId, { key: newKey(), prompt });
}

export function askAgain(conversationId, key) {
  const item = getThread(conversationId).making.find((one) => one.key === key);
  return ask(conversationId, { key, prompt: item.prompt });
}

export function dropPicture(conversationId, key) {
  updateThread(conversationId, (thread) => ({ making: thread.making.filter((item) => item.key !== key) }));
  remember(conversationId);
}

/** After a reload: what this tab asked for and did not see the end of. */
export function askKept(conversationId) {
  const { making } = getThread(conversationId);
  const kept = perTab.get(`making.${conversationId}`) ?? [];
  for (const item of kept) if (!making.some((one) => one.key === item.key)) ask(conversationId, item);
}

async function ask(conversationId, { key, prompt }) {
  const item = { key, prompt, status: "making", error: "" }; // "making", "refused"
  updateThread(conversationId, ({ making }) => ({ making: [...making.filter((one) => one.key !== key), item] }));
  remember(conversationId);
  const { userId } = getState().session;
  const isSomebodyElse = () => getState().session.userId !== userId;
  try {
    const message = await api.makePicture(conversationId, prompt, key);
    if (isSomebodyElse()) return;
    upsertMessages(conversationId, [message]);
    noteLastMessage(conversationId, message);
    dropPicture(conversationId, key);
    announce("The picture is here.");
  } catch (error) {
    if (!isSomebodyElse()) refused(conversationId, key, explain(error));
  }
}

function refused(conversationId, key, error) {
  updateThread(conversationId, ({ making }) => ({
    making: making.map((item) => (item.key === key ? { ...item, status: "refused", error } : item)),
  }));
  announce(error);
}

function remember(conversationId) {
  const { making } = getThread(conversationId);
  perTab.set(`making.${conversationId}`, making.length ? making.map(({ key, prompt }) => ({ key, prompt })) : null);
}
