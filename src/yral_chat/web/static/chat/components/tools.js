import { html, useRef } from "../preact.js";
import { AttachIcon, MicrophoneIcon, SparkleIcon } from "./icons.js";

const ACCEPTED = "image/jpeg,image/png,image/gif,image/webp";

/** What a message can be made of besides words. */
export function Tools({ name, isBusy, onFiles, onAsk, onRecord }) {
  const input = useRef(null);
  const chosen = () => {
    onFiles(input.current.files);
    input.current.value = ""; // so that the same file can be chosen again
  };
  const tool = (Icon, label, onClick, isOff = false) => html`
    <button type="button" class="round quiet" aria-label=${label} title=${label} disabled=${isOff} onClick=${onClick}><${Icon} /></button>`;
  return html`
    <div class="composer-tools">
      <input ref=${input} type="file" accept=${ACCEPTED} multiple hidden aria-label="Pictures to attach" onChange=${chosen} />
      ${tool(AttachIcon, "Attach pictures", () => input.current.click())}
      ${tool(SparkleIcon, `Ask ${name} for a picture`, onAsk, isBusy)}
      ${tool(MicrophoneIcon, "Record a voice note", onRecord)}
    </div>`;
}
