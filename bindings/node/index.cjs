// Classes on the native calls of src/addon.c.
'use strict';
const native = require('./grug.node');

const STOP_REASONS = ['capacity', 'end-byte', 'sequence', 'grammar'];
const encoder = new TextEncoder();

/** Text and bytes as a Uint8Array. */
function toBytes(data) {
  if (typeof data === 'string') return encoder.encode(data);
  if (data instanceof Uint8Array) return data;
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  throw new TypeError('expected a string, an ArrayBuffer or a view of one');
}

function check(condition, message) {
  if (!condition) throw Object.assign(new RangeError(message), { code: 'GRUG_EINVAL', status: -1 });
}

class Handle {
  #handle;
  constructor(handle) {
    this.#handle = handle;
  }
  get _native() {
    return this.#handle;
  }
  close() {
    native.close(this.#handle);
  }
  [Symbol.dispose ?? Symbol.for('Symbol.dispose')]() {
    this.close();
  }
}

class Model extends Handle {
  static async load(source, { threads = 0, mmap = true } = {}) {
    check(Number.isInteger(threads) && threads >= 0, 'threads must be 0 or more');
    const from = source instanceof URL ? require('node:url').fileURLToPath(source) : source;
    return new Model(await native.modelLoad(typeof from === 'string' ? from : toBytes(from), threads, mmap ? 0 : 1));
  }
  get info() {
    const { endByte, ...info } = native.modelInfo(this._native);
    return { ...info, endByte: endByte < 0 ? null : endByte };
  }
  get metadata() {
    return native.modelMetadata(this._native);
  }
  createSession(options) {
    return new Session(this, options);
  }
}

class Sampler extends Handle {
  constructor({ temperature = 0, topK = 0, topP = 0, minP = 0, seed = 0 } = {}) {
    check(Number.isInteger(topK) && topK >= 0, 'topK must be 0 or more');
    super(native.samplerNew(temperature, topK, topP, minP, seed));
  }
  reset(seed = 0) {
    native.samplerReset(this._native, seed);
  }
  pick(logits) {
    return native.samplerPick(this._native, logits);
  }
}

class Session extends Handle {
  #cancel;
  #busy = false;

  constructor(model, { maxContext = 0, overflow = 'slide' } = {}) {
    check(overflow === 'slide' || overflow === 'error', 'overflow must be "slide" or "error"');
    const cancel = native.cancelNew();
    super(native.sessionNew(model._native, maxContext, overflow === 'slide' ? 0 : 1, cancel));
    this.#cancel = cancel;
  }

  /** Runs a call that `signal` may abort; the session goes on afterwards. */
  async #run(signal, call) {
    signal?.throwIfAborted();
    if (this.#busy) {
      throw Object.assign(new Error('another call is using this session'), { code: 'GRUG_EBUSY', status: -8 });
    }
    this.#busy = true;
    const abort = () => native.cancelTrigger(this.#cancel);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      return await call();
    } catch (error) {
      if (signal?.aborted && error.code === 'GRUG_ECANCELED') {
        // What the platform's own calls throw; the call's error is its cause where there is room for one.
        const reason = signal.reason;
        if (reason instanceof Error && reason.cause === undefined && Object.isExtensible(reason)) reason.cause = error;
        throw reason;
      }
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
      if (signal?.aborted) native.cancelReset(this.#cancel);
      this.#busy = false;
    }
  }

  get position() {
    return native.sessionPosition(this._native);
  }
  reset() {
    native.sessionReset(this._native);
  }
  feed(data, { signal } = {}) {
    return this.#run(signal, () => native.sessionFeed(this._native, toBytes(data)));
  }

  async *bytes({ sampler = null, maxBytes = Infinity, stops = [], chunkBytes = 1, signal } = {}) {
    check(Number.isInteger(chunkBytes) && chunkBytes > 0, 'chunkBytes must be 1 or more');
    const list = stops.map(toBytes);
    let left = maxBytes;
    while (left > 0) {
      const { bytes, reason } = await this.#run(signal, () =>
        native.sessionGenerate(this._native, sampler?._native ?? null, Math.min(chunkBytes, left), list),
      );
      left -= bytes.length;
      if (bytes.length > 0) yield bytes;
      if (reason !== 0) return STOP_REASONS[reason];
    }
    return STOP_REASONS[0];
  }

  async *text(options) {
    const decoder = new TextDecoder();
    const pieces = this.bytes(options);
    let piece;
    while (!(piece = await pieces.next()).done) {
      const text = decoder.decode(piece.value, { stream: true });
      if (text) yield text;
    }
    const rest = decoder.decode();
    if (rest) yield rest;
    return piece.value;
  }

  async generate({ maxBytes = 400, ...options } = {}) {
    let text = '';
    for await (const piece of this.text({ maxBytes, chunkBytes: 64, ...options })) text += piece;
    return text;
  }

  score(data, { signal } = {}) {
    return this.#run(signal, () => native.sessionScore(this._native, toBytes(data)));
  }
  logits({ signal } = {}) {
    return this.#run(signal, () => native.sessionLogits(this._native));
  }
  rewind(n) {
    check(Number.isSafeInteger(n) && n >= 0, 'n must be 0 or more');
    native.sessionRewind(this._native, n);
  }
  save() {
    return native.sessionSave(this._native);
  }
  restore(state) {
    native.sessionRestore(this._native, toBytes(state));
  }
}

module.exports = { Model, Session, Sampler, version: native.version() };
