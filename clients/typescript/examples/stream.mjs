// Streams a wav file at the pace of its sound, and says what it sounds like:
//
//   node examples/stream.mjs FILE [TARGET]

import { fromFile, Undertone } from "@undertone/client/node";

const [file, target = "localhost:50051"] = process.argv.slice(2);
if (!file) {
  console.error("usage: node examples/stream.mjs FILE [TARGET]");
  process.exit(2);
}
const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort());

const undertone = new Undertone(target);
try {
  const source = await fromFile(file, { realtime: true });
  for await (const event of undertone.stream(source, { signal: interrupted.signal })) {
    switch (event.type) {
      case "estimate":
        if (!event.abstains) {
          console.log(`${event.end.toFixed(1)} s  ${event.affect.top} ${event.affect.confidence.toFixed(2)}`);
        }
        break;
      case "escalation":
        console.log(`${event.kind}: ${event.escalation.title}: ${event.escalation.reason}`);
        break;
      case "reconnected":
        console.log(`went on after ${event.downtime.toFixed(1)} s: ${event.cause.message}`);
        break;
    }
  }
} catch (error) {
  if (!interrupted.signal.aborted) {
    console.error(error.message);
  }
  process.exitCode = interrupted.signal.aborted ? 130 : 1;
}
