// GRUG_TEST_MODEL names a small model with a context of 32 bytes, GRUG_TEST_MODEL_END one with the end byte 10.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { Grammar, Model, Sampler, devices, nextBatch, version } from 'grug';

const path = process.env.GRUG_TEST_MODEL;
const model = await Model.load(path, { threads: 1 });
const warm = (seed = 0) => new Sampler({ temperature: 1, seed });

async function collect(pieces) {
  const all = [];
  for await (const piece of pieces) all.push(...piece);
  return Buffer.from(all);
}

test('models load from files and bytes, and say what they are', async () => {
  assert.match(version, /^\d+\.\d+/);
  assert.equal(model.info.contextBytes, 32);
  assert.equal(model.info.endByte, null);
  assert.equal(typeof model.info.fingerprint, 'bigint');
  assert.equal(model.metadata.note, 'for tests');
  const others = [await Model.load(pathToFileURL(path), { mmap: false }), await Model.load(await readFile(path))];
  const logits = await model.createSession().logits();
  for (const other of others) assert.deepEqual(await other.createSession().logits(), logits);
  assert.equal(createRequire(import.meta.url)('grug').Model, Model);
});

test('errors have codes', async () => {
  assert.equal(devices()[0].name, 'cpu');
  await Model.load(path, { device: 'cpu' });
  await assert.rejects(Model.load(path, { device: 'cuda:99' }), { code: 'GRUG_EDEVICE', message: /cuda:99/ });
  await assert.rejects(Model.load('no-such-model'), { code: 'GRUG_EIO', message: /no-such-model/ });
  await assert.rejects(Model.load(new Uint8Array(5)), { code: 'GRUG_EFORMAT' });
  assert.throws(() => new Sampler({ temperature: -1 }), { code: 'GRUG_EINVAL', message: /temperature/ });
  assert.throws(() => model.createSession({ maxContext: 1e9 }), { code: 'GRUG_EINVAL', message: /max_context/ });
  const strict = model.createSession({ overflow: 'error' });
  await assert.rejects(strict.feed('x'.repeat(33)), { code: 'GRUG_EFULL' });
  await assert.rejects(strict.feed(17), TypeError);
  strict.close();
  await assert.rejects(strict.feed('x'), { code: 'GRUG_EINVAL', status: -1, message: /closed/ });
});

test('what would count as nothing is refused', async () => {
  const session = model.createSession();
  const refused = { code: 'GRUG_EINVAL', status: -1 };
  for (const maxBytes of [1.5, -1, NaN]) await assert.rejects(session.generate({ maxBytes }), refused);
  await assert.rejects(session.generate({ sampler: { temperature: 1 } }), refused);
  await assert.rejects(nextBatch([session], { samplers: ['greedy'] }), refused);
  for (const maxContext of [-5, NaN, 1.5]) assert.throws(() => model.createSession({ maxContext }), refused);
  for (const options of [{ grammar: 'root ::= "a"' }, { temperature: '1' }, { temp: 1 }, { seed: 1.5 }, { topK: -1 }]) {
    assert.throws(() => new Sampler(options), refused);
  }
  for (const options of [{ device: 'cpu\0' }, { threads: 2 ** 32 }]) await assert.rejects(Model.load(path, options), refused);
  await assert.rejects(Model.load(`${path}\0.old`), refused);
  assert.equal(session.position, 0);

  new Sampler({ temperature: undefined, seed: undefined, bias: { length: 256, ...Array(256).fill(0) } });
  const drawn = (seed) => {
    const sampler = warm(seed);
    return Array.from({ length: 9 }, () => sampler.pick(new Float32Array(256))).join();
  };
  assert.equal(new Set([0, -1, 2 ** 60, 2n ** 63n].map(drawn)).size, 4);
  assert.equal(drawn(2 ** 60), drawn(2n ** 60n));
});

test('text keeps the mark that it begins with', async () => {
  const sampler = new Sampler({ grammar: Grammar.regex('\\x{FEFF}a') });
  assert.equal(await model.createSession().generate({ sampler }), '\uFEFFa');
});

test('a process that exits waits for no call', () => {
  const program = `const { Model } = require('grug');
    Model.load(${JSON.stringify(path)}, { threads: 1 }).then((model) => {
      model.createSession().score(Buffer.alloc(1e8)).catch(() => {});
      setTimeout(() => process.exit(7), 50);
    });`;
  assert.equal(spawnSync(process.execPath, ['-e', program], { timeout: 20_000 }).status, 7);
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

test('scores, rewind, save and restore', async () => {
  const session = model.createSession();
  const { total, nats } = await session.score('score me');
  assert.equal(nats.length, 8);
  assert.ok(Math.abs(total - nats.reduce((a, b) => a + b)) < 1e-3 && total > 0);
  const state = session.save();
  const wanted = await collect(session.bytes({ sampler: warm(5), maxBytes: 20 }));
  session.rewind(20);
  assert.deepEqual(await collect(session.bytes({ sampler: warm(5), maxBytes: 20 })), wanted);
  const restored = model.createSession();
  restored.restore(state);
  assert.deepEqual(await collect(restored.bytes({ sampler: warm(5), maxBytes: 20 })), wanted);
  assert.throws(() => session.rewind(1000), { code: 'GRUG_EREWIND' });
  assert.throws(() => session.restore(state.subarray(1)), { code: 'GRUG_EFORMAT' });
});

test('a signal aborts a call, a second call is busy, and the event loop turns meanwhile', async () => {
  const session = model.createSession();
  const controller = new AbortController();
  const pieces = session.bytes({ sampler: warm(), chunkBytes: 1 << 24, signal: controller.signal });
  const endless = pieces.next();
  await assert.rejects(session.feed('x'), { code: 'GRUG_EBUSY' });
  assert.throws(() => session.save(), { code: 'GRUG_EBUSY' });
  setTimeout(() => controller.abort(), 50);
  // What the session holds is what was seen, to the byte.
  const seen = await endless;
  assert.ok(seen.value.length > 0 && seen.value.length === session.position);
  await assert.rejects(pieces.next(), { name: 'AbortError' });
  await session.feed('the session goes on');
  await assert.rejects(session.feed('x', { signal: controller.signal }), { name: 'AbortError' });

  // Closing during a call frees when it ends.
  const again = new AbortController();
  const pending = collect(session.bytes({ chunkBytes: 1 << 24, signal: again.signal }));
  session.close();
  again.abort();
  await assert.rejects(pending, { name: 'AbortError' });
});

test('sessions of one model run side by side', async () => {
  const texts = await Promise.all(
    Array.from({ length: 8 }, () => model.createSession().generate({ sampler: warm(9), maxBytes: 100 })),
  );
  assert.deepEqual(new Set(texts).size, 1);
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
  // It has a token of its own.
  const controller = new AbortController();
  const other = fork.fork();
  const endless = collect(other.bytes({ chunkBytes: 1 << 24, signal: controller.signal }));
  const aborted = assert.rejects(endless, { name: 'AbortError' });
  setTimeout(() => controller.abort(), 5);
  await fork.generate({ maxBytes: 50 });
  await aborted;
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
  assert.equal((await portable.decompress(archive, { maxBytes: Infinity })).length, 300);
  await assert.rejects(portable.decompress(archive, { maxBytes: 299 }), { code: 'GRUG_ESPACE' });
  await assert.rejects(portable.decompress(archive, { maxBytes: NaN }), { code: 'GRUG_EINVAL' });
  await assert.rejects(portable.decompress(archive.subarray(1)), { code: 'GRUG_EFORMAT' });
  await assert.rejects(model.compress(text), { code: 'GRUG_EUNSUPPORTED' });
  await assert.rejects(portable.compress(new Uint8Array(1 << 24), { signal: AbortSignal.timeout(20) }), {
    name: 'TimeoutError',
  });
});

test('loading is heard, and can be aborted', async () => {
  const lines = [];
  const heard = [];
  const log = (level, line) => lines.push(`${level}: ${line}`);
  const loud = await Model.load(path, { threads: 2, log, onProgress: (fraction) => heard.push(fraction) });
  assert.equal(heard.at(-1), 1);
  assert.ok(lines.some((line) => /^info: .*2 threads/.test(line)), lines.join());
  const session = loud.createSession();
  loud.close();
  session.fork();
  assert.equal(lines.filter((line) => line.startsWith('debug: session')).length, 1, lines.join());
  await assert.rejects(Model.load(path, { signal: AbortSignal.abort() }), { name: 'AbortError' });
  const thrown = new Error('no more');
  const onProgress = () => {
    throw thrown;
  };
  await assert.rejects(Model.load(path, { onProgress }), thrown);
  // Also where it is asked while it loads.
  const { setInterval } = globalThis;
  globalThis.setInterval = (tick) => void setImmediate(tick);
  try {
    await assert.rejects(Model.load(path, { onProgress }), thrown);
  } finally {
    globalThis.setInterval = setInterval;
  }
});
