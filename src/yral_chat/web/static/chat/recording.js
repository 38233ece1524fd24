// One voice note: the microphone, the encoder, and how loud it is.

// In the order of what the service and browsers get along with best; Safari has only the last.
const FORMATS = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];
const BITS_PER_SECOND = 32_000; // plenty for speech in Opus
export const LONGEST_SECONDS = 300; // what the service takes
const STOP_AT_MS = (LONGEST_SECONDS - 1) * 1000; // encoders add some milliseconds
const LOUD = 5; // speech has a root mean square of about a fifth of full scale

const REFUSALS = {
  NotAllowedError: "This page may not use the microphone. Allow it in the browser's settings for this page, then try again.",
  NotFoundError: "No microphone was found. Connect one and try again.",
  NotReadableError: "The microphone is being used by another program.",
};

/** The microphone cannot be had; the message is the sentence to show. */
export class NoMicrophone extends Error {}

export class Recording {
  #stream;
  #recorder;
  #context = new AudioContext();
  #analyser;
  #samples;
  #pieces = [];
  #startedAt = performance.now();
  #timer;

  /** Asks for the microphone and begins. Throws NoMicrophone. `onLimit` is called when the longest time is over. */
  static async start(onLimit) {
    if (!navigator.mediaDevices) throw new NoMicrophone("Browsers give the microphone only to pages opened with https or on localhost.");
    const format = window.MediaRecorder && FORMATS.find((type) => MediaRecorder.isTypeSupported(type));
    if (!format) throw new NoMicrophone("This browser cannot record sound.");
    try {
      return new Recording(await navigator.mediaDevices.getUserMedia({ audio: true }), format, onLimit);
    } catch (error) {
      throw new NoMicrophone(REFUSALS[error.name] ?? `The microphone does not start (${error.message}).`);
    }
  }

  constructor(stream, format, onLimit) {
    this.#stream = stream;
    this.#recorder = new MediaRecorder(stream, { mimeType: format, audioBitsPerSecond: BITS_PER_SECOND });
    this.#recorder.ondataavailable = ({ data }) => this.#pieces.push(data);
    this.#recorder.start();
    this.#analyser = this.#context.createAnalyser();
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#context.createMediaStreamSource(stream).connect(this.#analyser);
    this.#timer = setTimeout(onLimit, STOP_AT_MS);
    // A microphone that is unplugged ends the recording, which is kept.
    stream.getAudioTracks()[0].onended = onLimit;
  }

  get seconds() {
    return (performance.now() - this.#startedAt) / 1000;
  }

  /** How loud it is now, 0..1. */
  get level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length;
    return Math.min(1, Math.sqrt(power) * LOUD);
  }

  /** Resolves to the recording. */
  async stop() {
    const recorder = this.#recorder;
    const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve, { once: true }));
    if (recorder.state !== "inactive") {
      recorder.stop();
      await stopped;
    }
    this.release();
    return new Blob(this.#pieces, { type: recorder.mimeType });
  }

  /** Lets the microphone go; what was recorded is forgotten unless `stop` was called before. */
  release() {
    clearTimeout(this.#timer);
    for (const track of this.#stream.getTracks()) track.stop();
    if (this.#context.state !== "closed") this.#context.close();
  }
}
