import { html, useEffect, useRef } from "../preact.js";

const BAR_PX = 3;
const STEP_PX = 5;
const EVERY_MS = 60;
const CALM_EVERY_MS = 500;

/** How loud the last seconds were, as bars that run from right to left; one slow bar for who wants little movement. */
export function Meter({ recording }) {
  const canvas = useRef(null);
  useEffect(() => {
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const levels = [];
    const timer = setInterval(() => {
      if (!canvas.current) return; // effects end a little after their element
      levels.push(recording.level);
      (isCalm ? drawOne : drawAll)(canvas.current, levels);
    }, isCalm ? CALM_EVERY_MS : EVERY_MS);
    return () => clearInterval(timer);
  }, [recording]);
  return html`<canvas ref=${canvas} class="meter" role="img" aria-label="Sound level"></canvas>`;
}

function drawAll(canvas, levels) {
  const { pen, width, height } = cleared(canvas);
  levels.splice(0, levels.length - Math.ceil(width / STEP_PX));
  levels.forEach((level, index) => {
    const tall = Math.max(BAR_PX, level * height);
    const left = width - (levels.length - index) * STEP_PX;
    pen.roundRect(left, (height - tall) / 2, BAR_PX, tall, BAR_PX / 2);
  });
  pen.fill();
}

function drawOne(canvas, levels) {
  const { pen, width, height } = cleared(canvas);
  const level = levels.splice(0).at(-1);
  pen.roundRect(0, height / 2 - BAR_PX, Math.max(BAR_PX, level * width), BAR_PX * 2, BAR_PX);
  pen.fill();
}

function cleared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const pen = canvas.getContext("2d");
  pen.scale(devicePixelRatio, devicePixelRatio);
  pen.fillStyle = getComputedStyle(canvas).color;
  pen.beginPath();
  return { pen, width, height };
}
