// What the audio thread has and TypeScript's own libraries do not tell of.

declare class AudioWorkletProcessor {
  constructor(options?: { processorOptions?: any });
  readonly port: MessagePort;
}

declare function registerProcessor(name: string, processor: new (options: any) => AudioWorkletProcessor): void;
