import { html, useRef, useState } from "../preact.js";
import { PictureIcon } from "./icons.js";

/** An area that takes files dropped on it. */
export function DropArea({ onFiles, children, ...attributes }) {
  const [isOver, setOver] = useState(false);
  const inside = useRef(0); // entering a child is told before leaving its parent
  const enter = (event, step) => {
    if (!hasFiles(event)) return;
    inside.current += step;
    setOver(inside.current > 0);
  };
  const over = (event) => {
    if (hasFiles(event)) event.preventDefault(); // else the browser would open the file
  };
  const drop = (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    inside.current = 0;
    setOver(false);
    onFiles(event.dataTransfer.files);
  };
  return html`
    <div ...${attributes} onDragEnter=${(event) => enter(event, 1)} onDragLeave=${(event) => enter(event, -1)} onDragOver=${over} onDrop=${drop}>
      ${children}
      ${isOver && html`<div class="drop-here"><p><${PictureIcon} /> Drop pictures here</p></div>`}
    </div>`;
}

function hasFiles(event) {
  return event.dataTransfer.types.includes("Files");
}
