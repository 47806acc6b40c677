// The WebAssembly module: finding and starting it, its memory, calls of grug_* functions that throw,
// and handles.

/** A message's room in a grug_error, whose size never changes: status, then text. */
const ERROR_BYTES = 256;
const EPANIC = -17;
/** How long a call may keep the event loop waiting, in ms. */
const PATIENCE = 8;

const decoder = new TextDecoder();
const encoder = new TextEncoder();

export function failure(code, status, message) {
  return Object.assign(new Error(message), { code, status });
}

export function check(condition, message) {
  if (!condition) throw Object.assign(new RangeError(message), { code: 'GRUG_EINVAL', status: -1 });
}

export const isCount = (n) => Number.isSafeInteger(n) && n >= 0;

/** Text and bytes as a Uint8Array. */
export function toBytes(data) {
  if (typeof data === 'string') return encoder.encode(data);
  if (data instanceof Uint8Array) return data;
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  throw new TypeError('expected a string, an ArrayBuffer or a view of one');
}

/** The same as a copy, for calls that take steps: meanwhile the caller may change its bytes, or give them away. */
export const copied = (data) => new Uint8Array(toBytes(data));

const isNode = typeof process === 'object' && Boolean(process.versions?.node);

/** What is at a URL, or in Node also in a file, as a Response. */
export async function fetched(source, signal) {
  const isFile = source instanceof URL ? source.protocol === 'file:' : isNode && !/^(https?|data|blob):/.test(source);
  if (isNode && isFile) {
    const { readFile } = await import('node:fs/promises');
    try {
      return new Response(await readFile(source));
    } catch (error) {
      throw Object.assign(failure('GRUG_EIO', -3, error.message), { cause: error });
    }
  }
  let response;
  try {
    response = await fetch(source, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw Object.assign(failure('GRUG_EIO', -3, `${source}: ${error.message}`), { cause: error });
  }
  return response;
}

function refuse(response) {
  if (!response.ok) throw failure('GRUG_EIO', -3, `${response.url}: ${response.status} ${response.statusText}`);
}

// ---- the event loop --------------------------------------------------------------------------------------------

/** Lets other tasks run, without the 4 ms that timers wait. */
const pause = globalThis.setImmediate
  ? () => new Promise((resolve) => setImmediate(resolve))
  : (() => {
      const { port1, port2 } = new MessageChannel();
      const waiting = [];
      port1.onmessage = () => waiting.shift()();
      return () =>
        new Promise((resolve) => {
          waiting.push(resolve);
          port2.postMessage(null);
        });
    })();

let breathed = 0;

/** Between two steps of a long call: lets other tasks run if it is time, and throws if `signal` says so. */
export async function breathe(signal) {
  if (performance.now() - breathed > PATIENCE) {
    await pause();
    breathed = performance.now();
  }
  signal?.throwIfAborted();
}

/** Calls `step(n)` for as much of `count` at a time as takes a few ms; it returns how far it got. */
export async function paced(count, signal, step) {
  let size = 1;
  for (let done = 0; done < count; ) {
    await breathe(signal);
    const began = performance.now();
    const n = step(done, Math.min(size, count - done));
    if (n === 0) return done;
    done += n;
    const took = performance.now() - began;
    if (took < PATIENCE / 4) size = Math.min(2 * size, 4096);
    else if (took > PATIENCE) size = Math.max(1, size >> 1);
  }
  return count;
}

// ---- the module ------------------------------------------------------------------------------------------------

/** One instance of the module. A trap, which is a fault of the library, leaves it unusable with all its handles. */
class Library {
  #dead = false;

  constructor(instance) {
    this.exports = instance.exports;
    // Calls do not overlap, so one error and one output serve all.
    this.error = this.alloc(ERROR_BYTES);
    this.out = this.alloc(16);
    this.version = this.text(this.exports.grug_version());
    /** Frees the handles that were forgotten. */
    this.forgotten = new FinalizationRegistry(({ free, pointer }) => this.quietly(() => free(pointer)));
  }

  get isDead() {
    return this.#dead;
  }

  /** Runs `f`, which calls into the module. */
  enter(f) {
    if (this.#dead) throw failure('GRUG_EPANIC', EPANIC, 'an earlier internal error left this handle unusable');
    try {
      return f();
    } catch (error) {
      // A trap, or the end of the stack.
      if (!(error instanceof WebAssembly.RuntimeError || error instanceof RangeError)) throw error;
      this.#dead = true;
      if (current === this) current = null;
      throw Object.assign(failure('GRUG_EPANIC', EPANIC, `internal error: ${error.message}`), { cause: error });
    }
  }

  quietly(f) {
    if (!this.#dead) this.enter(f);
  }

  /** Calls a function whose last argument is a grug_error; what it returns, which is not negative. */
  call(name, ...args) {
    const status = this.enter(() => this.exports[name](...args, this.error));
    if (status >= 0) return status;
    const code = this.text(this.exports.grug_status_name(status));
    throw failure(code, status, this.text(this.error + 4));
  }

  // Views are made anew each time: they end when the memory grows.
  bytes(pointer, len) {
    return new Uint8Array(this.exports.memory.buffer, pointer, len);
  }
  view(pointer, len) {
    return new DataView(this.exports.memory.buffer, pointer, len);
  }

  /** A copy of NUL-terminated text. */
  text(pointer) {
    const all = new Uint8Array(this.exports.memory.buffer);
    return decoder.decode(all.subarray(pointer, all.indexOf(0, pointer)));
  }

  alloc(len) {
    // The module counts in 32 bits, and would take a greater length for what is left of it.
    const pointer = len < 2 ** 32 ? this.enter(() => this.exports.grug_wasm_alloc(len)) >>> 0 : 0;
    if (pointer === 0) throw failure('GRUG_ENOMEM', -2, `no memory for ${len} bytes`);
    return pointer;
  }

  free(pointer, len) {
    this.quietly(() => this.exports.grug_wasm_free(pointer, len));
  }

  /** Calls `f` with the address of `len` bytes, zeros, which are gone afterwards. */
  with(len, f) {
    const pointer = this.alloc(len);
    try {
      this.bytes(pointer, len).fill(0);
      return f(pointer);
    } finally {
      this.free(pointer, len);
    }
  }

  /** Calls `f` with the address of a copy of these bytes. */
  withBytes(data, f) {
    return this.with(data.length, (pointer) => {
      this.bytes(pointer, data.length).set(data);
      return f(pointer);
    });
  }

  /** The handle that a function writes through its second-last argument. */
  make(name, ...args) {
    this.call(name, ...args, this.out);
    return this.view(this.out, 4).getUint32(0, true);
  }
}

let compiled = null;
let starting = null;
let current = null;

async function compile(source) {
  if (source instanceof WebAssembly.Module) return source;
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return WebAssembly.compile(source);
  const response = source instanceof Response ? source : await fetched(source);
  refuse(response);
  return WebAssembly.compile(await response.arrayBuffer());
}

/** Loads the module, once: from beside this file, or from what is given first. */
export async function init(source = new URL('./grug.wasm', import.meta.url)) {
  compiled ??= compile(source).catch((error) => {
    compiled = null;
    throw error;
  });
  const module = await compiled;
  if (current) return;
  // Whoever asks meanwhile gets the same instance.
  starting ??= WebAssembly.instantiate(module, {})
    .then((instance) => void (current = new Library(instance)))
    .finally(() => (starting = null));
  await starting;
}

/** The instance in use. */
export function library() {
  if (!current) throw failure('GRUG_EINVAL', -1, 'the module is not loaded: await init() or Model.load() first');
  return current;
}

/** The whole of a response in memory of the module: its address and length, which are the caller's to free. */
export async function received(lib, response, onProgress, signal) {
  refuse(response);
  const total = Number(response.headers.get('content-length'));
  let [len, room] = [0, Number.isSafeInteger(total) && total > 0 ? total : 1 << 16];
  let pointer = lib.alloc(room);
  const reader = response.body.getReader();
  // Nobody wants the rest; a read that waits for it ends.
  const cancel = () => void reader.cancel().catch(() => {});
  signal?.addEventListener('abort', cancel);
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { value, done } = await reader.read();
      if (done) break;
      if (len + value.length > room) {
        // A compressed response is longer than its length says.
        const larger = Math.max(2 * room, len + value.length);
        const moved = lib.alloc(larger);
        lib.bytes(moved, len).set(lib.bytes(pointer, len));
        lib.free(pointer, room);
        [pointer, room] = [moved, larger];
      }
      lib.bytes(pointer + len, value.length).set(value);
      len += value.length;
      if (total > 0) onProgress?.(Math.min(1, len / total));
    }
    signal?.throwIfAborted();
    onProgress?.(1);
    return { pointer, room, len };
  } catch (error) {
    lib.free(pointer, room);
    cancel();
    throw error;
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

/** A handle of the module, freed by close() or when it is collected. */
export class Handle {
  #free;
  #handle;

  constructor(lib, handle, release) {
    this._lib = lib;
    this.#handle = handle;
    this.#free = { free: release, pointer: handle };
    lib.forgotten.register(this, this.#free, this);
  }

  get _handle() {
    check(this.#handle !== 0, `this ${this.constructor.name.toLowerCase()} is closed`);
    return this.#handle;
  }

  close() {
    if (this.#handle === 0) return;
    const { free, pointer } = this.#free;
    this._lib.forgotten.unregister(this);
    this._lib.quietly(() => free(pointer));
    this.#handle = 0;
  }

  [Symbol.dispose ?? Symbol.for('Symbol.dispose')]() {
    this.close();
  }
}
