// Pictures that wait in the composer for the message they belong to. Each goes up as soon as it is chosen.

import * as api from "./api.js";
import { newKey } from "./ids.js";
import { announce } from "./store.js";
import { getThread, updateThread } from "./threads.js";
import { explainUpload, isWorthRepeating } from "./uploads.js";

export const MOST_PICTURES = 10; // in one message, as the service takes them

const uploads = new Map(); // attachment key -> AbortController

/** Takes files that were chosen, pasted or dropped, as far as they are pictures and there is room. */
export function attach(conversationId, files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/"));
  const room = MOST_PICTURES - getThread(conversationId).attachments.length;
  const taken = pictures.slice(0, room).map((file) => ({
    key: newKey(),
    file,
    preview: URL.createObjectURL(file),
    status: "uploading", // "uploading", "ready", "failed"
    progress: 0,
    error: "",
    canRepeat: false,
    stored: null, // what the service answered
  }));
  updateThread(conversationId, (thread) => ({
    attachments: [...thread.attachments, ...taken],
    attachmentProblem: problemWith(files, pictures, room),
  }));
  for (const item of taken) upload(conversationId, item);
}

function problemWith(files, pictures, room) {
  if (pictures.length > room) return `At most ${MOST_PICTURES} pictures go into one message.`;
  if (pictures.length < files.length) return "Only pictures can be attached: JPEG, PNG, GIF or WebP.";
  return "";
}

export function uploadAgain(conversationId, key) {
  const item = getThread(conversationId).attachments.find((one) => one.key === key);
  patch(conversationId, key, { status: "uploading", progress: 0, error: "" });
  upload(conversationId, item);
}

export function detach(conversationId, key) {
  const item = getThread(conversationId).attachments.find((one) => one.key === key);
  uploads.get(key)?.abort();
  URL.revokeObjectURL(item.preview);
  updateThread(conversationId, (thread) => ({
    attachments: thread.attachments.filter((one) => one.key !== key),
    attachmentProblem: "",
  }));
}

/** Empties the composer: the pictures go into a message, and their previews with them. */
export function takeAttachments(conversationId) {
  const { attachments } = getThread(conversationId);
  updateThread(conversationId, { attachments: [], attachmentProblem: "" });
  return attachments;
}

/** Stops every upload: somebody signed out. */
export function abandonUploads() {
  for (const upload of uploads.values()) upload.abort();
}

async function upload(conversationId, { key, file }) {
  const controller = new AbortController();
  uploads.set(key, controller);
  try {
    const onProgress = (progress) => patch(conversationId, key, { progress });
    const stored = await api.upload("image", file, { onProgress, signal: controller.signal });
    patch(conversationId, key, { status: "ready", progress: 1, stored });
    announce("The picture is uploaded.");
  } catch (error) {
    if (controller.signal.aborted) return;
    patch(conversationId, key, { status: "failed", error: explainUpload(error), canRepeat: isWorthRepeating(error) });
  } finally {
    uploads.delete(key);
  }
}

function patch(conversationId, key, change) {
  updateThread(conversationId, (thread) => ({
    attachments: thread.attachments.map((item) => (item.key === key ? { ...item, ...change } : item)),
  }));
}
