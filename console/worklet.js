/** Runs in the audio thread: gathers its first input's first channel as 16-bit integers, and posts it chunk by chunk. */
class Recorder extends AudioWorkletProcessor {
  /** @param {{processorOptions: {samples: number}}} options `samples` of a chunk */
  constructor(options) {
    super(options);
    this.samples = options.processorOptions.samples;
    this.chunk = new Int16Array(this.samples);
    this.filled = 0;
    this.peak = 0;
  }

  /** @param {Float32Array[][]} inputs @returns {boolean} whether to go on */
  process([[samples]]) {
    // No input: the microphone is not connected yet, or gone.
    if (samples === undefined) return true;
    for (const sample of samples) {
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.chunk[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.filled === this.samples) {
        // Given away, not copied: it is another one's now.
        this.port.postMessage({ samples: this.chunk.buffer, peak: this.peak }, [this.chunk.buffer]);
        this.chunk = new Int16Array(this.samples);
        this.filled = 0;
        this.peak = 0;
      }
    }
    return true;
  }
}

registerProcessor("undertone", Recorder);
