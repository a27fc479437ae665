// The microphone to a server, what it sounds like to the page. `?http=http://localhost:9464&grpc=http://localhost:50051`
// says where the server is, if it is not where the page is.

import { microphone, Undertone } from "@undertone/client/browser";

const server = Object.fromEntries(new URLSearchParams(location.search));
const undertone = new Undertone(server);
const [talk, scores, state] = ["talk", "scores", "state"].map((id) => document.getElementById(id));
let source;

talk.addEventListener("click", async () => {
  if (source) {
    source.stop();
    return;
  }
  try {
    source = await microphone();
    talk.textContent = "Stop";
    for await (const event of undertone.stream(source, { labels: { page: "example" } })) {
      show(event);
    }
  } catch (error) {
    state.textContent = error.message;
  } finally {
    source?.stop();
    source = undefined;
    talk.textContent = "Listen";
  }
});

function show(event) {
  switch (event.type) {
    case "started":
      state.textContent = `Session ${event.sessionId}, model ${event.model.name}.`;
      scores.replaceChildren(...event.model.labels.flatMap(bar));
      break;
    case "estimate":
      state.textContent = event.abstains
        ? `${event.end.toFixed(1)} s: not sure.`
        : `${event.end.toFixed(1)} s: ${event.affect.top}.`;
      for (const { emotion, probability } of event.affect?.scores ?? []) {
        document.getElementById(emotion).value = probability;
      }
      break;
    case "reconnected":
      state.textContent = `Went on after ${event.downtime.toFixed(1)} s.`;
      break;
    case "finished":
      state.textContent = `${event.audio.toFixed(1)} s heard, ${event.estimates} estimates.`;
      break;
  }
}

function bar(emotion) {
  const [name, value, progress] = ["dt", "dd", "progress"].map((tag) => document.createElement(tag));
  name.textContent = emotion;
  progress.id = emotion;
  value.append(progress);
  return [name, value];
}
