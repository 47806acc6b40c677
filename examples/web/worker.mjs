// The model, in a worker of its own, so that the page never waits for it.
//
// In:  { load: address | ArrayBuffer } · { write: { prompt, temperature, topP, seed, maxBytes } } · { more: {…} } · { stop }
// Out: { progress } · { model } · { text, bytes } · { done: reason } · { error }
import { Model, Sampler } from './grug/index.mjs';

let model = null;
let session = null;
let writing = null;

async function load(source) {
  const next = await Model.load(source, { onProgress: (progress) => postMessage({ progress }) });
  writing?.abort(); // with the model before
  session?.close();
  model?.close();
  model = next;
  session = model.createSession();
  postMessage({ model: { ...model.info, fingerprint: String(model.info.fingerprint) } });
}

async function write({ temperature, topP, seed, maxBytes }, prompt) {
  writing = new AbortController();
  const { signal } = writing;
  const sampler = new Sampler({ temperature, topP, seed });
  try {
    if (prompt !== undefined) {
      session.reset();
      await session.feed(prompt, { signal });
    }
    const from = session.position;
    const pieces = session.text({ sampler, maxBytes, signal });
    for (let piece; !(piece = await pieces.next()).done; ) {
      postMessage({ text: piece.value, bytes: session.position - from });
    }
    postMessage({ done: 'end' });
  } catch (error) {
    if (!signal.aborted) throw error;
    postMessage({ done: 'stopped' });
  } finally {
    writing = null;
    sampler.close();
  }
}

onmessage = async ({ data }) => {
  try {
    if ('load' in data) await load(data.load);
    else if ('write' in data) await write(data.write, data.write.prompt);
    else if ('more' in data) await write(data.more);
    else writing?.abort();
  } catch (error) {
    postMessage({ error: error.code ? `${error.message} (${error.code})` : String(error) });
  }
};
