// Classes on the native calls of src/.
'use strict';
const native = require('./grug.node');

const FLAGS = { mmap: 1, mlock: 2, portable: 4, selfCheck: 8 };
const GRAMMARS = { regex: 1, gbnf: 2, jsonSchema: 3 };
const LOG_LEVELS = [undefined, 'error', 'warn', 'info', 'debug'];
/** How often loading is asked how far it is, in milliseconds. */
const PROGRESS_EVERY = 20;
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

const isCount = (n) => Number.isSafeInteger(n) && n >= 0;

function seedOf(seed) {
  check(typeof seed === 'bigint' || Number.isInteger(seed), 'seed must be an integer');
  return BigInt(seed);
}

/** The native handle of an object of this class, or null where there is none. Anything else would count as none. */
function optional(handle, kind) {
  check(handle == null || handle instanceof kind, `expected a ${kind.name}`);
  return handle?._native ?? null;
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

/** What the library has to say: written by any thread, and handed on here when the call that made it is over. */
class Log {
  #native = native.logNew();
  #write;
  constructor(write) {
    this.#write = write;
  }
  get native() {
    return this.#native;
  }
  get isWanted() {
    return this.#write !== undefined;
  }
  get progress() {
    return native.logProgress(this.#native);
  }
  flush() {
    if (!this.#write) return;
    const lines = native.logTake(this.#native);
    for (let i = 0; i < lines.length; i += 2) this.#write(LOG_LEVELS[lines[i]], lines[i + 1]);
  }
}

/** Tokens of the calls in progress. A process that exits waits for its thread pool, so what runs there is stopped. */
const running = new Set();
process.once('exit', () => running.forEach((token) => native.cancelTrigger(token)));

/** Runs a call that a token of the library stops, and triggers that when `signal` aborts. */
async function abortable(signal, tokens, call) {
  signal?.throwIfAborted();
  const abort = () => tokens.forEach((token) => native.cancelTrigger(token));
  signal?.addEventListener('abort', abort, { once: true });
  tokens.forEach((token) => running.add(token));
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
    tokens.forEach((token) => running.delete(token));
    signal?.removeEventListener('abort', abort);
    if (signal?.aborted) tokens.forEach((token) => native.cancelReset(token));
  }
}

class Model extends Handle {
  #log;
  constructor(handle, log) {
    super(handle);
    this.#log = log;
  }
  get _log() {
    return this.#log;
  }

  static async load(source, options = {}) {
    const { threads = 0, mmap = true, mlock = false, portable = false, selfCheck = true, device = null } = options;
    const { signal, onProgress, log } = options;
    check(isCount(threads) && threads < 2 ** 32, 'threads must be 0 or more');
    const from = source instanceof URL ? require('node:url').fileURLToPath(source) : source;
    const loading = (mmap ? 0 : FLAGS.mmap) | (mlock ? FLAGS.mlock : 0);
    const flags = loading | (portable ? FLAGS.portable : 0) | (selfCheck ? 0 : FLAGS.selfCheck);
    const token = native.cancelNew();
    const to = new Log(log);
    let reported = -1;
    const report = () => {
      const now = to.progress;
      if (now > reported) onProgress((reported = now));
    };
    let thrown;
    const tick = () => {
      try {
        report();
      } catch (error) {
        // Out of a timer it would end the process; it stops loading, which rejects with it.
        thrown ??= { error };
        native.cancelTrigger(token);
      }
    };
    const timer = onProgress && setInterval(tick, PROGRESS_EVERY);
    try {
      const handle = await abortable(signal, [token], () =>
        native.modelLoad(
          typeof from === 'string' ? from : toBytes(from),
          threads,
          flags,
          token,
          to.native,
          to.isWanted,
          device,
        ),
      );
      if (onProgress && !thrown) report();
      if (!thrown) return new Model(handle, to);
    } catch (error) {
      thrown ??= { error };
    } finally {
      clearInterval(timer);
      to.flush();
    }
    throw thrown.error;
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
  async compress(data, { maxContext = 0, signal } = {}) {
    check(isCount(maxContext), 'maxContext must be 0 or more');
    const token = native.cancelNew();
    return abortable(signal, [token], () => native.modelCompress(this._native, toBytes(data), maxContext, token));
  }
  async decompress(archive, { maxBytes = 2 ** 30, signal } = {}) {
    check(maxBytes >= 0, 'maxBytes must be 0 or more');
    const token = native.cancelNew();
    const most = Math.min(maxBytes, Number.MAX_SAFE_INTEGER);
    return abortable(signal, [token], () => native.modelDecompress(this._native, toBytes(archive), most, token));
  }
}

class Grammar extends Handle {
  constructor(kind, source) {
    check(kind in GRAMMARS, 'kind must be "regex", "gbnf" or "jsonSchema"');
    super(native.grammarNew(GRAMMARS[kind], toBytes(source)));
  }
  static regex(source) {
    return new Grammar('regex', source instanceof RegExp ? source.source : source);
  }
  static gbnf(source) {
    return new Grammar('gbnf', source);
  }
  static jsonSchema(source) {
    return new Grammar('jsonSchema', typeof source === 'string' ? source : JSON.stringify(source));
  }
}

/** 256 logits, of an array of them or of those of some bytes. */
function biasOf(bias) {
  if (bias == null) return null;
  if (typeof bias.length === 'number') return Float32Array.from(bias);
  const logits = new Float32Array(256);
  for (const [byte, value] of bias instanceof Map ? bias : Object.entries(bias)) {
    const index = Number(byte);
    check(Number.isInteger(index) && index >= 0 && index < 256, `bias has no byte ${byte}`);
    logits[byte] = value;
  }
  return logits;
}

/** In the order that the addon takes them. */
const SAMPLER_NUMBERS = [
  'temperature', 'topP', 'minP', 'typicalP', 'topK', 'penaltyWindow',
  'repeatPenalty', 'frequencyPenalty', 'presencePenalty', 'mirostatTau', 'mirostatEta',
];

class Sampler extends Handle {
  constructor(options = {}) {
    super(Sampler.#make(options));
  }
  static #make(options) {
    // A fork brings its handle along.
    if (options instanceof Forked) return options.handle;
    const { seed = 0, utf8 = false, bias, grammar, ...numbers } = options;
    for (const [name, n] of Object.entries(numbers)) {
      check(SAMPLER_NUMBERS.includes(name), `${name} is no option of a sampler`);
      check(n === undefined || typeof n === 'number', `${name} must be a number`);
    }
    for (const name of ['topK', 'penaltyWindow']) {
      const { [name]: n = 0 } = numbers;
      check(isCount(n) && n < 2 ** 32, `${name} must be 0 or more`);
    }
    const all = SAMPLER_NUMBERS.map((name) => numbers[name] ?? 0);
    return native.samplerNew(all, seedOf(seed), utf8 ? 1 : 0, biasOf(bias), optional(grammar, Grammar));
  }
  reset(seed = 0) {
    native.samplerReset(this._native, seedOf(seed));
  }
  fork() {
    return new Sampler(new Forked(native.samplerFork(this._native)));
  }
  pick(logits) {
    return native.samplerPick(this._native, logits);
  }
  accept(byte) {
    check(Number.isInteger(byte) && byte >= 0 && byte < 256, 'a byte is 0 to 255');
    native.samplerAccept(this._native, byte);
  }
  allowed() {
    const { mask, complete } = native.samplerAllowed(this._native);
    const bytes = new Set();
    for (let byte = 0; byte < 256; byte++) if ((mask[byte >> 3] >> (byte & 7)) & 1) bytes.add(byte);
    return { bytes, complete };
  }
}

class Forked {
  constructor(handle, cancel, log, embeddingDim) {
    Object.assign(this, { handle, cancel, log, embeddingDim });
  }
}

class Session extends Handle {
  #cancel;
  #log;
  #embeddingDim;
  #busy = false;

  constructor(model, options) {
    const made = model instanceof Forked ? model : Session.#make(model, options);
    super(made.handle);
    this.#cancel = made.cancel;
    this.#log = made.log;
    this.#embeddingDim = made.embeddingDim;
    this.#log.flush();
  }
  static #make(model, { maxContext = 0, overflow = 'slide', drafts = true } = {}) {
    check(overflow === 'slide' || overflow === 'error', 'overflow must be "slide" or "error"');
    check(isCount(maxContext), 'maxContext must be 0 or more');
    const cancel = native.cancelNew();
    const handle = native.sessionNew(model._native, maxContext, overflow === 'slide' ? 0 : 1, drafts ? 0 : 1, cancel);
    return new Forked(handle, cancel, model._log, model.info.embeddingDim);
  }

  /** Runs a call on sessions that `signal` may abort; they go on afterwards. */
  static async #runAll(sessions, signal, call) {
    signal?.throwIfAborted();
    if (sessions.some((session) => session.#busy)) {
      throw Object.assign(new Error('another call is using this session'), { code: 'GRUG_EBUSY', status: -8 });
    }
    sessions.forEach((session) => (session.#busy = true));
    try {
      return await abortable(signal, sessions.map((session) => session.#cancel), call);
    } finally {
      sessions.forEach((session) => (session.#busy = false));
      sessions[0]?.#log.flush();
    }
  }
  #run(signal, call) {
    return Session.#runAll([this], signal, call);
  }

  static _nextBatch(sessions, { samplers = [], input = [], signal } = {}) {
    const n = sessions.length;
    check(!samplers.length || samplers.length === n, 'samplers must be as many as the sessions');
    check(!input.length || input.length === n, 'input must be as many as the sessions');
    const fed = sessions.map((_, i) => input[i] ?? -1);
    check(fed.every((byte) => Number.isInteger(byte) && byte >= -1 && byte < 256), 'a byte is 0 to 255');
    return Session.#runAll(sessions, signal, () =>
      native.sessionNextBatch(
        sessions.map((session) => session._native),
        sessions.map((_, i) => optional(samplers[i], Sampler)),
        fed,
      ),
    );
  }

  fork() {
    const cancel = native.cancelNew();
    return new Session(new Forked(native.sessionFork(this._native, cancel), cancel, this.#log, this.#embeddingDim));
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
    check(isCount(chunkBytes) && chunkBytes > 0, 'chunkBytes must be 1 or more');
    check(maxBytes === Infinity || isCount(maxBytes), 'maxBytes must be an integer, 0 or more');
    const picks = optional(sampler, Sampler);
    const list = stops.map(toBytes);
    let left = maxBytes;
    while (left > 0) {
      let piece = { bytes: [], reason: 0 };
      const generate = async () => {
        try {
          return await native.sessionGenerate(this._native, picks, Math.min(chunkBytes, left), list);
        } catch (error) {
          piece = { ...piece, bytes: error.bytes ?? [] };
          throw error;
        }
      };
      try {
        piece = await this.#run(signal, generate);
      } finally {
        // What was written before an error is text of the session too: it comes first.
        if (piece.bytes.length > 0) yield piece.bytes;
      }
      left -= piece.bytes.length;
      if (piece.reason !== 0) return STOP_REASONS[piece.reason];
    }
    return STOP_REASONS[0];
  }

  async *text(options) {
    // What the model writes is text from its first byte on: a mark there is a character like any other.
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
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
  embedding({ signal } = {}) {
    return this.#run(signal, () => native.sessionEmbedding(this._native, this.#embeddingDim));
  }
  rewind(n) {
    check(isCount(n), 'n must be 0 or more');
    native.sessionRewind(this._native, n);
  }
  save() {
    return native.sessionSave(this._native);
  }
  restore(state) {
    native.sessionRestore(this._native, toBytes(state));
  }
}

module.exports = {
  Model,
  Session,
  Sampler,
  Grammar,
  nextBatch: Session._nextBatch,
  devices: native.devices,
  version: native.version(),
};
