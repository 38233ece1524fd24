import * as api from "../api.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { LONGEST_SECONDS, Recording } from "../recording.js";
import { announce } from "../store.js";
import { duration } from "../text.js";
import { explainUpload } from "../uploads.js";
import { BinIcon, SendIcon, StopIcon } from "./icons.js";
import { Meter } from "./meter.js";
import { Player } from "./player.js";

const WARN_FROM = LONGEST_SECONDS - 30;
const nothingNewer = async () => false;

/** In the composer's place while a voice note is made. onSend(stored, blob), onClose(problem) */
export function Recorder({ isBusy, onSend, onClose }) {
  const note = useNote(onClose);
  const { sending, problem, send } = useSending(note, onSend);
  return html`
    <div class="composer-box recorder" role="group" aria-label="Voice note">
      <button type="button" class="round quiet" aria-label="Discard the recording" title="Discard" onClick=${() => onClose("")}><${BinIcon} /></button>
      ${note.recording && html`<${Running} recording=${note.recording} onStop=${note.stop} />`}
      ${note.recorded && html`<${Player} url=${note.recorded.preview} seconds=${note.recorded.seconds} onStale=${nothingNewer} />`}
      ${!note.recording && !note.recorded && html`<p class="recorder-wait" role="status">Waiting for the microphone…</p>`}
      <button type="button" class="round send" aria-label="Send the recording" title="Send"
        disabled=${isBusy || sending !== null || (!note.recording && !note.recorded)} onClick=${send}><${SendIcon} /></button>
    </div>
    <p class="composer-hint">
      ${sending !== null && html`<progress max="1" value=${sending} aria-label="Uploading the recording"></progress>`}
      ${problem && html`<span class="problem-text" role="alert">The recording was not sent. ${problem}</span>`}
    </p>`;
}

function Running({ recording, onStop }) {
  const [seconds, setSeconds] = useState(0);
  const stop = useRef(null);
  useEffect(() => {
    stop.current.focus();
    announce("Recording.");
    const timer = setInterval(() => setSeconds(recording.seconds), 250);
    return () => clearInterval(timer);
  }, [recording]);
  return html`
    <span class="recorder-time ${seconds > WARN_FROM ? "problem-text" : ""}">${duration(seconds)}
      ${seconds > WARN_FROM && html`<span> of ${duration(LONGEST_SECONDS)}</span>`}</span>
    <${Meter} recording=${recording} />
    <button type="button" ref=${stop} class="round stop" aria-label="Stop recording" title="Stop" onClick=${onStop}><${StopIcon} /></button>`;
}

/** {recording, recorded: {blob, preview, seconds}, stop()}: the first while it runs, the second once it is over. */
function useNote(onClose) {
  const [recording, setRecording] = useState(null);
  const [recorded, setRecorded] = useState(null);
  const running = useRef(null);
  const done = useRef(null);

  const stop = () => {
    done.current ??= finish(running.current).then((result) => {
      setRecording(null);
      setRecorded(result);
      return result;
    });
    return done.current;
  };
  useEffect(() => {
    let isGone = false;
    Recording.start(stop).then(
      (started) => {
        if (isGone) return started.release();
        running.current = started;
        setRecording(started);
      },
      (error) => !isGone && onClose(error.message),
    );
    return () => {
      isGone = true;
      running.current?.release();
      done.current?.then(({ preview }) => URL.revokeObjectURL(preview));
    };
  }, []);
  return { recording, recorded, stop };
}

async function finish(recording) {
  const { seconds } = recording;
  const blob = await recording.stop();
  return { blob, seconds, preview: URL.createObjectURL(blob) };
}

/** Sends the note, stopping it first; `sending` is how far the upload is, or null. */
function useSending({ stop }, onSend) {
  const [sending, setSending] = useState(null);
  const [problem, setProblem] = useState("");
  const controller = useRef(new AbortController());
  useEffect(() => () => controller.current.abort(), []);

  const send = async () => {
    setSending(0);
    setProblem("");
    const { blob } = await stop();
    const { signal } = controller.current;
    try {
      onSend(await api.upload("audio", blob, { onProgress: setSending, signal }), blob);
    } catch (error) {
      if (signal.aborted) return;
      setProblem(explainUpload(error));
      setSending(null);
    }
  };
  return { sending, problem, send };
}
