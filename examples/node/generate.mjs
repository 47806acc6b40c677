// Streams text from a model, until Ctrl-C at the latest: node generate.mjs MODEL [PROMPT [BYTES]]
//
//   scripts/install /tmp/grug && GRUG_PREFIX=/tmp/grug npm install ./bindings/node
import { Model, Sampler } from 'grug';

const [path, prompt = '', bytes = '400'] = process.argv.slice(2);
if (path === undefined || path.startsWith('-')) {
  console.error('usage: node generate.mjs MODEL [PROMPT [BYTES]]');
  process.exit(2);
}
const interrupt = new AbortController();
process.once('SIGINT', () => interrupt.abort());
const { signal } = interrupt;

try {
  const model = await Model.load(path, { signal });
  const session = model.createSession();
  await session.feed(prompt, { signal });
  process.stdout.write(prompt);
  const sampler = new Sampler({ temperature: 0.8 });
  // Whole characters, as they come; the model computes off the event loop.
  for await (const piece of session.text({ sampler, maxBytes: Number(bytes), signal })) process.stdout.write(piece);
} catch (error) {
  if (!signal.aborted) {
    console.error(`generate: ${error.message}`);
    process.exitCode = 1;
  }
}
process.stdout.write('\n');
