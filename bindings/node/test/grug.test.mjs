// GRUG_TEST_MODEL names a small model with a context of 32 bytes, GRUG_TEST_MODEL_END one with the end byte 10.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { Model, Sampler, version } from 'grug';

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
  await assert.rejects(Model.load('no-such-model'), { code: 'GRUG_EIO', message: /no-such-model/ });
  await assert.rejects(Model.load(new Uint8Array(5)), { code: 'GRUG_EFORMAT' });
  assert.throws(() => new Sampler({ temperature: -1 }), { code: 'GRUG_EINVAL', message: /temperature/ });
  assert.throws(() => model.createSession({ maxContext: 1e9 }), { code: 'GRUG_EINVAL', message: /max_context/ });
  const strict = model.createSession({ overflow: 'error' });
  await assert.rejects(strict.feed('x'.repeat(33)), { code: 'GRUG_EFULL' });
  await assert.rejects(strict.feed(17), TypeError);
  strict.close();
  await assert.rejects(strict.feed('x'), /closed/);
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
  const endless = session.bytes({ sampler: warm(), chunkBytes: 1 << 24, signal: controller.signal }).next();
  await assert.rejects(session.feed('x'), { code: 'GRUG_EBUSY' });
  assert.throws(() => session.save(), { code: 'GRUG_EBUSY' });
  setTimeout(() => controller.abort(), 20);
  await assert.rejects(endless, { name: 'AbortError' });
  assert.ok(session.position > 0);
  await session.feed('the session goes on');
  await assert.rejects(session.feed('x', { signal: controller.signal }), { name: 'AbortError' });

  // Closing during a call frees when it ends.
  const again = new AbortController();
  const pending = session.bytes({ chunkBytes: 1 << 24, signal: again.signal }).next();
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
