// GRUG_TEST_MODEL names a small model with a context of 32 bytes, GRUG_TEST_MODEL_END one with the end byte 10, and
// GRUG_TEST_CASES a list of models with the logits and bytes that they must give.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { Grammar, Model, Sampler, devices, init, nextBatch, version } from 'grug-wasm';

const path = process.env.GRUG_TEST_MODEL;
assert.throws(version, { code: 'GRUG_EINVAL' });
// Both are of one instance of the module, which neither of them finds there.
const [model, twin] = await Promise.all([Model.load(path), Model.load(path)]);
const warm = (seed = 0) => new Sampler({ temperature: 1, seed });

async function collect(pieces) {
  const all = [];
  for await (const piece of pieces) all.push(...piece);
  return Buffer.from(all);
}

test('models load from files, addresses and bytes, and say what they are', async () => {
  assert.match(version(), /^\d+\.\d+/);
  assert.equal(model.info.contextBytes, 32);
  assert.equal(model.info.endByte, null);
  assert.equal(typeof model.info.fingerprint, 'bigint');
  assert.equal(model.metadata.note, 'for tests');
  assert.match(model.metadata['grug.config'], /context_bytes = 32/);
  const file = await readFile(path);
  const fractions = [];
  const onProgress = (fraction) => fractions.push(fraction);
  const sources = [pathToFileURL(path), file, file.buffer.slice(file.byteOffset, file.byteOffset + file.length)];
  sources.push(new Response(file, { headers: { 'content-length': `${file.length}` } }), new Response(file));
  const logits = await model.createSession().logits();
  for (const source of sources) {
    const other = await Model.load(source, { onProgress });
    assert.deepEqual(await other.createSession().logits(), logits);
    assert.equal(other.info.fingerprint, model.info.fingerprint);
  }
  assert.equal(fractions.at(-1), 1);
  await init();
  for (const one of [model, twin]) await one.createSession().generate({ sampler: warm(), maxBytes: 3 });
});

test('errors have codes', async () => {
  await assert.rejects(Model.load('no-such-model'), { code: 'GRUG_EIO', message: /no-such-model/ });
  await assert.rejects(Model.load(new Response('gone', { status: 404 })), { code: 'GRUG_EIO', message: /404/ });
  await assert.rejects(Model.load(new Uint8Array(5)), { code: 'GRUG_EFORMAT' });
  await assert.rejects(Model.load(new Uint8Array(0)), { code: 'GRUG_EFORMAT' });
  assert.throws(() => new Sampler({ temprature: 1 }), { code: 'GRUG_EINVAL', message: /temprature/ });
  assert.throws(() => new Sampler({ topK: -1 }), { code: 'GRUG_EINVAL', message: /topK/ });
  assert.throws(() => model.createSession({ maxContext: 1e9 }), { code: 'GRUG_EINVAL', message: /max_context/ });
  const strict = model.createSession({ overflow: 'error' });
  await assert.rejects(strict.feed('x'.repeat(33)), { code: 'GRUG_EFULL' });
  await assert.rejects(strict.feed(17), TypeError);
  strict.close();
  strict.close();
  await assert.rejects(strict.feed('x'), /closed/);
  assert.throws(() => strict.position, /closed/);
  await model.createSession().feed('a wrong call harms no other handle');
});

test('what would count as nothing is refused', async () => {
  const session = model.createSession();
  const refused = { code: 'GRUG_EINVAL', status: -1 };
  for (const maxBytes of [1.5, -1, NaN]) await assert.rejects(session.generate({ maxBytes }), refused);
  assert.throws(() => new Sampler({ seed: 1.5 }), refused);
  await assert.rejects(model.decompress(new Uint8Array(9), { maxBytes: NaN }), refused);
  new Sampler({ temperature: undefined, seed: undefined, bias: { length: 256, ...Array(256).fill(0) } });
  // More than the module can count.
  const huge = { headers: { 'content-length': `${2 ** 32 + 64}` } };
  await assert.rejects(Model.load(new Response(await readFile(path), huge)), { code: 'GRUG_ENOMEM' });
  await session.feed('and the module goes on');
});

test('bytes are those of the call, whatever becomes of them meanwhile', async () => {
  const logits = [];
  for (const change of [() => {}, (data) => data.fill(98), (data) => structuredClone(data, { transfer: [data.buffer] })]) {
    const session = model.createSession();
    const data = new Uint8Array(10_000).fill(97);
    const fed = session.feed(data);
    change(data);
    await fed;
    logits.push(await session.logits());
  }
  assert.deepEqual(logits[1], logits[0]);
  assert.deepEqual(logits[2], logits[0]);
});

test('text keeps the mark that it begins with', async () => {
  const sampler = new Sampler({ grammar: Grammar.regex('\\x{FEFF}a') });
  assert.equal(await model.createSession().generate({ sampler }), '\uFEFFa');
});

// Each value is out of range for its field, so that the message tells which field it arrived in.
test('every option of a sampler arrives in its field', () => {
  const wrong = { temperature: -1, topP: 2, minP: 2, typicalP: 2, repeatPenalty: -1, frequencyPenalty: NaN };
  Object.assign(wrong, { presencePenalty: NaN, mirostatTau: -1, mirostatEta: -1, penaltyWindow: 1e9 });
  for (const [name, value] of Object.entries(wrong)) {
    const field = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    assert.throws(() => new Sampler({ temperature: 1, [name]: value }), {
      code: /GRUG_E(INVAL|UNSUPPORTED)/,
      message: new RegExp(field),
    });
  }
  const logits = Float32Array.from({ length: 256 }, (_, i) => -Math.abs(i - 100) / 50);
  const picks = (options) => {
    const sampler = new Sampler(options);
    return Array.from({ length: 200 }, () => sampler.pick(logits));
  };
  assert.deepEqual(new Set(picks({ temperature: 1, topK: 3 })), new Set([99, 100, 101]));
  assert.deepEqual(new Set(picks({})), new Set([100]));
  const seeds = [1, 1n, 2n ** 63n];
  const [a, b, c] = seeds.map((seed) => picks({ temperature: 1, seed }));
  assert.deepEqual(a, b);
  assert.notDeepEqual(a, c);
});

test('every way to generate is the same', async () => {
  const session = model.createSession();
  const restart = async () => {
    session.reset();
    await session.feed('hello');
    return { sampler: warm(3), maxBytes: 50 };
  };
  const wanted = await collect(session.bytes({ ...(await restart()), chunkBytes: 16 }));
  assert.equal(wanted.length, 50);
  assert.equal(session.position, 55);
  assert.deepEqual(await collect(session.bytes(await restart())), wanted);
  assert.equal(await session.generate(await restart()), wanted.toString());
  const { sampler } = await restart();
  for (const byte of wanted) {
    assert.equal(sampler.pick(await session.logits()), byte);
    await session.feed(Uint8Array.of(byte));
  }
});

test('stop sequences and the end byte end the text', async () => {
  const session = model.createSession();
  const all = await collect(session.bytes({ sampler: warm(1), maxBytes: 60 }));
  const stop = all.subarray(20, 23);
  session.reset();
  const text = await collect(session.bytes({ sampler: warm(1), stops: [Buffer.from([255, 255, 255]), stop] }));
  assert.deepEqual(text, all.subarray(0, all.indexOf(stop) + 3));
  const ends = (await Model.load(process.env.GRUG_TEST_MODEL_END)).createSession();
  const pieces = ends.bytes({ sampler: warm(), chunkBytes: 1 << 15 });
  assert.equal((await pieces.next()).value.at(-1), 10);
  assert.deepEqual(await pieces.next(), { value: 'end-byte', done: true });
});

test('scores, rewind, fork, save and restore', async () => {
  const session = model.createSession();
  const { total, nats } = await session.score('score me');
  assert.equal(nats.length, 8);
  assert.ok(Math.abs(total - nats.reduce((a, b) => a + b)) < 1e-3 && total > 0);
  const state = session.save();
  const forks = [session.fork(), model.createSession()];
  forks[1].restore(state);
  const wanted = await collect(session.bytes({ sampler: warm(5), maxBytes: 20 }));
  session.rewind(20);
  for (const other of [session, ...forks]) {
    assert.deepEqual(await collect(other.bytes({ sampler: warm(5), maxBytes: 20 })), wanted);
  }
  assert.throws(() => session.rewind(1000), { code: 'GRUG_EREWIND' });
  assert.throws(() => session.restore(state.subarray(1)), { code: 'GRUG_EFORMAT' });
});

test('grammars guide what is written', async () => {
  const session = model.createSession();
  const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] };
  for (const [grammar, pattern] of [
    [Grammar.regex(/(19|20)[0-9]{2}/), /^(19|20)\d\d$/],
    [Grammar.gbnf('root ::= "<" [a-z]{2,4} ">"'), /^<[a-z]{2,4}>$/],
    [Grammar.jsonSchema(schema), /^\{\s*"ok"\s*:\s*(true|false)\s*\}$/],
  ]) {
    const sampler = new Sampler({ temperature: 1, grammar, utf8: true });
    grammar.close(); // the sampler goes on
    const pieces = session.text({ sampler });
    let text = '';
    let piece;
    while (!(piece = await pieces.next()).done) text += piece.value;
    assert.match(text, pattern);
    assert.equal(piece.value, 'grammar');
    assert.throws(() => new Sampler({ grammar }), /closed/);
  }
  assert.throws(() => Grammar.regex('('), { code: 'GRUG_EFORMAT' });
  assert.throws(() => Grammar.jsonSchema({ multipleOf: 2 }), { code: 'GRUG_EUNSUPPORTED' });

  const sampler = new Sampler({ grammar: Grammar.regex('a[b-d]?') });
  assert.throws(() => sampler.accept(98), { code: 'GRUG_EDEADEND' });
  sampler.accept(97);
  assert.deepEqual(sampler.fork().allowed(), { bytes: new Set([98, 99, 100]), complete: true });
});

test('samplers have their options', async () => {
  const session = model.createSession();
  const ban = Object.fromEntries(Array.from({ length: 256 }, (_, b) => [b, b >= 120 && b < 123 ? 0 : -Infinity]));
  const few = await session.generate({ sampler: new Sampler({ temperature: 1, bias: ban }), maxBytes: 40 });
  assert.match(few, /^[xyz]{40}$/);
  const sampler = new Sampler({ bias: new Map(Object.entries(ban)), penaltyWindow: 2, presencePenalty: 1e6 });
  assert.doesNotMatch(await session.generate({ sampler, maxBytes: 30 }), /(.).?\1/);
  await session.generate({ sampler: new Sampler({ temperature: 1, mirostatTau: 2, typicalP: 0.5 }), maxBytes: 20 });
  for (const wrong of [{ typicalP: 2 }, { mirostatTau: -1 }, { penaltyWindow: -1 }, { topK: 0.5 }, { repeatPenalty: NaN }]) {
    assert.throws(() => new Sampler(wrong), { code: 'GRUG_EINVAL' }, JSON.stringify(wrong));
  }
  assert.throws(() => new Sampler({ bias: new Float32Array(3) }), TypeError);
  assert.throws(() => new Sampler({ bias: { 1.5: 1 } }), { code: 'GRUG_EINVAL', message: /1\.5/ });
  const text = await session.generate({ sampler: new Sampler({ temperature: 2, utf8: true }), maxBytes: 200 });
  assert.doesNotMatch(text.slice(0, -1), /\ufffd/);
});

test('a fork goes its own way, and embeds', async () => {
  const session = model.createSession();
  await session.feed('once');
  const fork = session.fork();
  const wanted = await collect(session.bytes({ sampler: warm(2), maxBytes: 20 }));
  session.close();
  assert.deepEqual(await collect(fork.bytes({ sampler: warm(2), maxBytes: 20 })), wanted);
  const embedding = await fork.embedding();
  assert.equal(embedding.length, model.info.embeddingDim);
  assert.ok(embedding.some((x) => x !== 0));
});

test('a batch is as if each were alone', async () => {
  const [a, b, full] = [model.createSession(), model.createSession(), model.createSession({ overflow: 'error' })];
  await a.feed('same');
  const wanted = await collect(a.fork().bytes({ sampler: warm(3), maxBytes: 20 }));
  const samplers = [warm(3), null];
  for (const byte of wanted) assert.deepEqual(await nextBatch([a, b], { samplers, input: [null, 120] }), [byte, 120]);
  assert.equal(b.position, 20);
  await full.feed(new Uint8Array(32));
  const [error, byte] = await nextBatch([full, b]);
  assert.equal(error.code, 'GRUG_EFULL');
  assert.ok(byte >= 0);
  await assert.rejects(nextBatch([b, b]), { code: 'GRUG_EBUSY' });
  assert.deepEqual(await nextBatch([]), []);
  await b.feed('and on');
});

test('what is compressed comes back', async () => {
  const portable = await Model.load(path, { portable: true });
  const text = await collect(portable.createSession().bytes({ maxBytes: 300, chunkBytes: 300 }));
  const archive = await portable.compress(text, { maxContext: 16 });
  assert.ok(archive.length < 200);
  assert.deepEqual(Buffer.from(await portable.decompress(archive)), text);
  assert.equal((await portable.decompress(await portable.compress(''))).length, 0);
  await assert.rejects(portable.decompress(archive, { maxBytes: 299 }), { code: 'GRUG_ESPACE' });
  await assert.rejects(portable.decompress(archive.subarray(1)), { code: 'GRUG_EFORMAT' });
  await assert.rejects(model.compress(text), { code: 'GRUG_EUNSUPPORTED' });
  await assert.rejects(portable.compress(text, { signal: AbortSignal.abort() }), { name: 'AbortError' });
});

test('the CPU is the device, and drafts change no byte', async () => {
  const [cpu, ...others] = devices();
  assert.deepEqual(others, []);
  assert.equal(cpu.name, 'cpu');
  assert.ok(cpu.memoryTotal >= 0 && typeof cpu.features === 'string');
  const texts = await Promise.all(
    [true, false].map(async (drafts) => collect(model.createSession({ drafts }).bytes({ maxBytes: 200, chunkBytes: 200 }))),
  );
  assert.deepEqual(texts[0], texts[1]);
});

test('a signal aborts a call, a second call is busy, and the event loop turns meanwhile', async () => {
  const session = model.createSession();
  const controller = new AbortController();
  const pieces = session.bytes({ sampler: warm(), chunkBytes: 1 << 30, signal: controller.signal });
  const endless = pieces.next();
  await assert.rejects(session.feed('x'), { code: 'GRUG_EBUSY' });
  assert.throws(() => session.save(), { code: 'GRUG_EBUSY' });
  const underWay = setInterval(() => session.position > 0 && controller.abort(), 1);
  // What the session holds is what was seen, to the byte.
  const seen = await endless;
  clearInterval(underWay);
  assert.ok(seen.value.length > 0 && seen.value.length === session.position);
  await assert.rejects(pieces.next(), { name: 'AbortError' });
  await session.feed('the session goes on');
  await assert.rejects(session.feed('x', { signal: controller.signal }), { name: 'AbortError' });
});

test('a signal aborts a load that waits for more', async () => {
  const controller = new AbortController();
  let canceled = false;
  const body = new ReadableStream({
    start: (stream) => stream.enqueue(new Uint8Array(9)),
    cancel: () => void (canceled = true),
  });
  const loading = Model.load(new Response(body), { signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  await assert.rejects(loading, { name: 'AbortError' });
  assert.ok(canceled);
});

test('sessions outlive their model, and memory is used again', async () => {
  const file = await readFile(path);
  let session = null;
  const texts = new Set();
  for (let i = 0; i < 300; i++) {
    const passing = await Model.load(file);
    session?.close();
    session = passing.createSession();
    passing.close();
    texts.add(await session.generate({ sampler: warm(9), maxBytes: 20 }));
  }
  assert.equal(texts.size, 1);
  // 300 copies of the file alone would be more than this.
  const { library } = await import('./node_modules/grug-wasm/library.mjs');
  assert.ok(library().exports.memory.buffer.byteLength < 300 * file.length);
});

// A trap has no way back for the instance that it happened in. The next model gets a new one.
test('a fault leaves an error on the old handles, and new ones work', async () => {
  const lost = await Model.load(path);
  const session = lost.createSession();
  const wanted = await session.fork().generate({ maxBytes: 10 });
  assert.throws(() => lost._lib.call('grug_session_feed', 2 ** 31, 2 ** 31, 5), { code: 'GRUG_EPANIC' });
  await assert.rejects(session.feed('x'), { code: 'GRUG_EPANIC' });
  assert.throws(() => lost.info, { code: 'GRUG_EPANIC' });
  session.close();
  const again = await Model.load(path);
  const sampler = new Sampler();
  assert.equal(await again.createSession().generate({ sampler, maxBytes: 10 }), wanted);
  const stale = again.createSession().bytes({ sampler: oldSampler });
  await assert.rejects(stale.next(), { code: 'GRUG_EINVAL', message: /another instance/ });
});
const oldSampler = warm();

test('models compute here what they compute elsewhere', async () => {
  for (const { name, file, cases, tolerance, greedy } of JSON.parse(await readFile(process.env.GRUG_TEST_CASES))) {
    const tested = await Model.load(file);
    let worst = 0;
    for (const { input, logits } of cases) {
      const session = tested.createSession();
      await session.feed(Uint8Array.from(input));
      const got = await session.logits();
      const scale = Math.max(...logits.map(Math.abs));
      const error = Math.max(...logits.map((wanted, i) => Math.abs(wanted - got[i]))) / scale;
      assert.ok(error <= tolerance, `${name}, input of ${input.length} bytes: off by ${error}`);
      worst = Math.max(worst, error);
    }
    for (const { seed, output } of greedy) {
      const session = tested.createSession();
      await session.feed(Uint8Array.from(seed));
      const text = await collect(session.bytes({ maxBytes: output.length - seed.length, chunkBytes: 64 }));
      assert.deepEqual([...seed, ...text], output, name);
    }
    console.log(`${name}: max|Δ| / max|reference| = ${worst.toExponential(2)} over ${cases.length} cases`);
    tested.close();
  }
});
