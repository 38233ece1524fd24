// Files on their way up. XMLHttpRequest, because fetch does not tell how far an upload is.

import { ApiError, Unreachable, address, explain } from "./http.js";

/** As `request` of http.js, with a form as the body. `onProgress` is called with 0..1. */
export function submit(path, { form, headers, signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", address(path));
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    xhr.onload = () => answered(xhr).then(resolve, reject);
    xhr.onerror = () => reject(new Unreachable());
    xhr.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
}

async function answered(xhr) {
  const headers = { "Retry-After": xhr.getResponseHeader("Retry-After") ?? "" };
  const response = new Response(xhr.response, { status: xhr.status, headers });
  if (!response.ok) throw await ApiError.from(response);
  return response;
}

/** The sentence to show for a file that was not taken. */
export function explainUpload(error) {
  const { limit, unit, errors } = error.details ?? {};
  if (error.status === 413 && unit === "bytes") return `It is too large: at most ${Math.floor(limit / 2 ** 20)} MB.`;
  if (error.status === 413 && unit === "pixels") return `It has too many pixels: at most ${Math.floor(limit / 1e6)} million.`;
  if (error.status === 422 && errors?.length) return `${errors[0].msg}.`;
  return explain(error);
}

/** False when the same file would be refused again. */
export function isWorthRepeating(error) {
  return ![413, 415, 422].includes(error.status);
}
