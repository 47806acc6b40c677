// grug for JavaScript, through WebAssembly: the classes of the package for Node, in browsers and everywhere else.
import {
  Handle, breathe, check, copied, failure, fetched, init, isCount, library, paced, received, toBytes,
} from './library.mjs';

export { Grammar, Sampler } from './sampler.mjs';
export { init };

/** Of a grug_device. */
const DEVICE_BYTES = 400;
const STOP_REASONS = ['capacity', 'end-byte', 'sequence', 'grammar'];
/** Bytes that are generated into one buffer. */
const PIECE = 4096;

/** The version of libgrug; once the module is loaded. */
export function version() {
  return library().version;
}

/** What models can run on here: the CPU. */
export function devices() {
  const lib = library();
  const count = lib.enter(() => lib.exports.grug_device_count());
  return Array.from({ length: count }, (_, i) =>
    lib.with(DEVICE_BYTES, (at) => {
      lib.view(at, 4).setUint32(0, DEVICE_BYTES, true);
      lib.call('grug_device_get', i, at);
      const memory = (from) => Number(lib.view(at, DEVICE_BYTES).getBigUint64(from, true));
      return {
        name: lib.text(at + 32),
        description: lib.text(at + 272),
        features: lib.text(at + 144),
        memoryTotal: memory(8),
        memoryFree: memory(16),
      };
    }),
  );
}

/** A model file in the module's memory, which is used where it is until the last handle of it is freed. */
class Weights {
  #users = 0;

  constructor(lib, { pointer, room, len }) {
    Object.assign(this, { lib, pointer, room, len });
  }

  use() {
    this.#users += 1;
  }

  /** What frees a handle that uses them, and them with the last one. */
  releasing(free) {
    return (pointer) => {
      free(pointer);
      this.#users -= 1;
      if (this.#users === 0) this.lib.free(this.pointer, this.room);
    };
  }
}

/** The value of a metadata entry or the name of one: asked for its length first. */
function textOf(lib, name, ...args) {
  const view = () => lib.view(lib.out, 4);
  view().setUint32(0, 0, true);
  try {
    lib.call(name, ...args, 0, lib.out);
    return '';
  } catch (error) {
    if (error.code !== 'GRUG_ESPACE') throw error;
  }
  const len = view().getUint32(0, true);
  return lib.with(len, (pointer) => {
    lib.call(name, ...args, pointer, lib.out);
    return new TextDecoder().decode(lib.bytes(pointer, len));
  });
}

export class Model extends Handle {
  #weights;

  constructor(lib, handle, weights) {
    super(lib, handle, weights.releasing(lib.exports.grug_model_free));
    weights.use();
    this.#weights = weights;
  }

  static async load(source, { portable = false, onProgress, signal } = {}) {
    signal?.throwIfAborted();
    await init();
    const lib = library();
    let file;
    if (typeof source === 'string' || source instanceof URL || source instanceof Response) {
      const response = source instanceof Response ? source : await fetched(source, signal);
      file = await received(lib, response, onProgress, signal);
    } else {
      const data = toBytes(source);
      file = { pointer: lib.alloc(data.length), room: data.length, len: data.length };
      lib.bytes(file.pointer, data.length).set(data);
    }
    try {
      // GRUG_LOAD_BORROW; one thread.
      const handle = lib.with(32, (options) => {
        const view = lib.view(options, 32);
        view.setUint32(0, 32, true);
        view.setUint32(8, 1, true);
        view.setUint32(12, portable ? 4 : 0, true);
        return lib.make('grug_model_load_buffer', file.pointer, file.len, 1, options);
      });
      return new Model(lib, handle, new Weights(lib, file));
    } catch (error) {
      lib.free(file.pointer, file.room);
      throw error;
    }
  }

  get _weights() {
    return this.#weights;
  }

  get info() {
    const lib = this._lib;
    return lib.with(64, (info) => {
      lib.view(info, 64).setUint32(0, 64, true);
      lib.call('grug_model_get_info', this._handle, info);
      const view = lib.view(info, 64);
      const u64 = (at) => Number(view.getBigUint64(at, true));
      const endByte = view.getInt32(60, true);
      return {
        params: u64(8),
        weightBytes: u64(16),
        fingerprint: view.getBigUint64(24, true),
        contextBytes: u64(32),
        stateBytes: u64(40),
        rewindBytes: u64(48),
        embeddingDim: view.getUint32(56, true),
        endByte: endByte < 0 ? null : endByte,
      };
    });
  }

  get metadata() {
    const entries = {};
    for (let i = 0; ; i++) {
      let key;
      try {
        key = textOf(this._lib, 'grug_model_get_metadata_key', this._handle, i);
      } catch (error) {
        if (error.code === 'GRUG_ENOTFOUND') return entries;
        throw error;
      }
      entries[key] = this._lib.withBytes(toBytes(`${key}\0`), (name) =>
        textOf(this._lib, 'grug_model_get_metadata', this._handle, name),
      );
    }
  }

  createSession(options) {
    return new Session(this, options);
  }

  /** Calls grug_compress or grug_decompress with room for so many bytes. */
  #recode(name, data, maxContext, room) {
    const lib = this._lib;
    return lib.with(SESSION_OPTIONS_BYTES, (options) => {
      writeSessionOptions(lib, options, maxContext);
      return lib.withBytes(data, (from) =>
        lib.with(room, (to) => {
          lib.view(lib.out, 4).setUint32(0, room, true);
          lib.call(name, this._handle, options, from, data.length, to, lib.out);
          return lib.bytes(to, lib.view(lib.out, 4).getUint32(0, true)).slice();
        }),
      );
    });
  }

  async compress(data, { maxContext = 0, signal } = {}) {
    const bytes = copied(data);
    await breathe(signal);
    // GRUG_COMPRESS_BOUND
    const room = bytes.length + Math.floor(bytes.length / 64) + 64;
    return this.#recode('grug_compress', bytes, maxContext, room);
  }

  async decompress(archive, { maxBytes = 2 ** 30, signal } = {}) {
    check(maxBytes >= 0, 'maxBytes must be 0 or more');
    const bytes = copied(archive);
    await breathe(signal);
    try {
      return this.#recode('grug_decompress', bytes, 0, 0);
    } catch (error) {
      if (error.code !== 'GRUG_ESPACE') throw error;
      const room = this._lib.view(this._lib.out, 4).getUint32(0, true);
      if (room > maxBytes) throw error;
      return this.#recode('grug_decompress', bytes, 0, room);
    }
  }
}

const SESSION_OPTIONS_BYTES = 32;

function writeSessionOptions(lib, at, maxContext, overflow = 0, flags = 0) {
  check(isCount(maxContext), 'maxContext must be 0 or more');
  const view = lib.view(at, SESSION_OPTIONS_BYTES);
  view.setUint32(0, SESSION_OPTIONS_BYTES, true);
  view.setBigUint64(8, BigInt(maxContext), true);
  view.setUint32(16, overflow, true);
  view.setUint32(20, flags, true);
}

function floats(lib, pointer, n) {
  return new Float32Array(lib.bytes(pointer, 4 * n).slice().buffer);
}

function concat(pieces) {
  const all = new Uint8Array(pieces.reduce((n, piece) => n + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

export class Session extends Handle {
  #weights;
  #embeddingDim;
  #busy = false;

  /** Of a model with options; `fork` gives the handle of a session that there is. */
  constructor(model, { maxContext = 0, overflow = 'slide', drafts = true } = {}, forked = null) {
    check(overflow === 'slide' || overflow === 'error', 'overflow must be "slide" or "error"');
    const [lib, weights] = [model._lib, model._weights];
    const create = () =>
      lib.with(SESSION_OPTIONS_BYTES, (options) => {
        writeSessionOptions(lib, options, maxContext, overflow === 'slide' ? 0 : 1, drafts ? 0 : 1);
        return lib.make('grug_session_new', model._handle, options);
      });
    super(lib, forked ?? create(), weights.releasing(lib.exports.grug_session_free));
    weights.use();
    this.#weights = weights;
    // Of a model, or of the session that was forked.
    this.#embeddingDim = forked === null ? model.info.embeddingDim : model.#embeddingDim;
  }

  get _weights() {
    return this.#weights;
  }

  /** The handle, for a call at once: not while a longer call is between two of its steps. */
  get #idle() {
    if (this.#busy) throw failure('GRUG_EBUSY', -8, 'another call is using this session');
    return this._handle;
  }

  #run(body) {
    return Session.#runAll([this], body);
  }

  static async #runAll(sessions, body) {
    for (const session of sessions) session.#idle;
    for (const session of sessions) session.#busy = true;
    try {
      return await body();
    } finally {
      for (const session of sessions) session.#busy = false;
    }
  }

  static async _nextBatch(sessions, { samplers = [], input = [], signal } = {}) {
    const n = sessions.length;
    check(!samplers.length || samplers.length === n, 'samplers must be as many as the sessions');
    check(!input.length || input.length === n, 'input must be as many as the sessions');
    const fed = sessions.map((_, i) => input[i] ?? -1);
    check(fed.every((byte) => Number.isInteger(byte) && byte >= -1 && byte < 256), 'a byte is 0 to 255');
    if (n === 0) return [];
    const lib = sessions[0]._lib;
    check(
      [...sessions, ...samplers].every((handle) => !handle || handle._lib === lib),
      'a handle belongs to another instance of the module',
    );
    return Session.#runAll(sessions, async () => {
      await breathe(signal);
      return lib.with(16 * n, (at) => {
        const view = lib.view(at, 16 * n);
        const [from, pickers, input, out] = [0, 4 * n, 8 * n, 12 * n];
        sessions.forEach((session, i) => {
          view.setUint32(from + 4 * i, session._handle, true);
          view.setUint32(pickers + 4 * i, samplers[i]?._handle ?? 0, true);
          view.setInt32(input + 4 * i, fed[i], true);
        });
        lib.call('grug_session_next_batch', at + from, at + pickers, at + input, n, at + out);
        const results = lib.view(at + out, 4 * n);
        return sessions.map((_, i) => {
          const byte = results.getInt32(4 * i, true);
          if (byte >= 0) return byte;
          const code = lib.text(lib.enter(() => lib.exports.grug_status_name(byte)));
          return failure(code, byte, code);
        });
      });
    });
  }

  get position() {
    const handle = this._handle;
    return Number(this._lib.enter(() => this._lib.exports.grug_session_position(handle)));
  }

  reset() {
    this._lib.call('grug_session_reset', this.#idle);
  }

  fork() {
    return new Session(this, {}, this._lib.make('grug_session_fork', this.#idle));
  }

  async feed(data, { signal } = {}) {
    signal?.throwIfAborted();
    const [lib, bytes] = [this._lib, copied(data)];
    await this.#run(() =>
      paced(bytes.length, signal, (from, n) => {
        lib.withBytes(bytes.subarray(from, from + n), (at) => lib.call('grug_session_feed', this._handle, at, n));
        return n;
      }),
    );
  }

  /** Puts up to `room` bytes into `pieces`, also where it fails on the way; why they end, a number of STOP_REASONS. */
  #generate(sampler, room, stops, signal, pieces) {
    const lib = this._lib;
    let reason = 0;
    // Addresses and lengths of the stop sequences, the sequences, and room for what is written.
    const table = 8 * stops.length;
    const text = concat(stops);
    const size = table + text.length + Math.min(room, PIECE);
    const step = (_, n) => {
      if (reason !== 0) return 0;
      return lib.with(size, (at) => {
        const view = lib.view(at, table);
        let next = at + table;
        stops.forEach((stop, i) => {
          view.setUint32(8 * i, next, true);
          view.setUint32(8 * i + 4, stop.length, true);
          next += stop.length;
        });
        lib.bytes(at + table, text.length).set(text);
        const from = sampler?._handle ?? 0;
        try {
          reason = lib.call('grug_session_generate', this._handle, from, at, stops.length, next, n, lib.out);
        } finally {
          const written = lib.view(lib.out, 4).getUint32(0, true);
          pieces.push(lib.bytes(next, written).slice());
        }
        return pieces.at(-1).length;
      });
    };
    return this.#run(async () => {
      await paced(room, signal, step);
      return reason;
    });
  }

  async *bytes({ sampler = null, maxBytes = Infinity, stops = [], chunkBytes = 1, signal } = {}) {
    check(isCount(chunkBytes) && chunkBytes > 0, 'chunkBytes must be 1 or more');
    check(maxBytes === Infinity || isCount(maxBytes), 'maxBytes must be an integer, 0 or more');
    check(sampler === null || sampler._lib === this._lib, 'the sampler belongs to another instance of the module');
    signal?.throwIfAborted();
    const list = stops.map(toBytes);
    let left = maxBytes;
    while (left > 0) {
      const pieces = [];
      let reason;
      try {
        reason = await this.#generate(sampler, Math.min(chunkBytes, left), list, signal, pieces);
      } finally {
        // What was written before an error is text of the session too: it comes first.
        const bytes = concat(pieces);
        left -= bytes.length;
        if (bytes.length > 0) yield bytes;
      }
      if (reason !== 0) return STOP_REASONS[reason];
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

  async score(data, { signal } = {}) {
    signal?.throwIfAborted();
    const [lib, bytes] = [this._lib, copied(data)];
    const nats = new Float32Array(bytes.length);
    let total = 0;
    await this.#run(() =>
      paced(bytes.length, signal, (from, n) =>
        lib.with(4 * n, (out) => {
          const part = bytes.subarray(from, from + n);
          lib.withBytes(part, (at) => lib.call('grug_session_score', this._handle, at, n, out, lib.out));
          total += lib.view(lib.out, 8).getFloat64(0, true);
          nats.set(floats(lib, out, n), from);
          return n;
        }),
      ),
    );
    return { total, nats };
  }

  async logits({ signal } = {}) {
    return this.#run(async () => {
      await breathe(signal);
      return this._lib.with(4 * 256, (out) => {
        this._lib.call('grug_session_get_logits', this._handle, out);
        return floats(this._lib, out, 256);
      });
    });
  }

  async embedding({ signal } = {}) {
    return this.#run(async () => {
      await breathe(signal);
      const lib = this._lib;
      return lib.with(4 * this.#embeddingDim, (out) => {
        lib.call('grug_session_get_embedding', this._handle, out, this.#embeddingDim);
        return floats(lib, out, this.#embeddingDim);
      });
    });
  }

  rewind(n) {
    check(isCount(n), 'n must be 0 or more');
    this._lib.call('grug_session_rewind', this.#idle, BigInt(n));
  }

  save() {
    const [lib, handle] = [this._lib, this.#idle];
    const view = () => lib.view(lib.out, 4);
    view().setUint32(0, 0, true);
    try {
      lib.call('grug_session_save', handle, 0, lib.out);
    } catch (error) {
      if (error.code !== 'GRUG_ESPACE') throw error;
    }
    const room = view().getUint32(0, true);
    return lib.with(room, (at) => {
      lib.call('grug_session_save', handle, at, lib.out);
      return lib.bytes(at, view().getUint32(0, true)).slice();
    });
  }

  restore(state) {
    const bytes = toBytes(state);
    this._lib.withBytes(bytes, (at) => this._lib.call('grug_session_restore', this.#idle, at, bytes.length));
  }
}

export const nextBatch = Session._nextBatch;
