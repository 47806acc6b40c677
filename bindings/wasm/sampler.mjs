// What a sampler may write, and samplers.
import { Handle, check, library, toBytes } from './library.mjs';

const GRAMMARS = { regex: 1, gbnf: 2, jsonSchema: 3 };

/** What a sampler may write; made, like a sampler, when the module is loaded. */
export class Grammar extends Handle {
  constructor(kind, source) {
    check(kind in GRAMMARS, 'kind must be "regex", "gbnf" or "jsonSchema"');
    const [lib, bytes] = [library(), toBytes(source)];
    const handle = lib.withBytes(bytes, (at) => lib.make('grug_grammar_new', GRAMMARS[kind], at, bytes.length));
    super(lib, handle, lib.exports.grug_grammar_free);
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

/** 256 logits as bytes, of an array of them or of those of some bytes. */
function biasOf(bias) {
  let logits = new Float32Array(256);
  if (typeof bias.length === 'number') {
    if (bias.length !== 256) throw new TypeError('bias must be 256 numbers');
    logits = Float32Array.from(bias);
  } else {
    for (const [byte, value] of bias instanceof Map ? bias : Object.entries(bias)) {
      const index = Number(byte);
      check(Number.isInteger(index) && index >= 0 && index < 256, `bias has no byte ${byte}`);
      logits[byte] = value;
    }
  }
  return new Uint8Array(logits.buffer);
}

function seedOf(seed) {
  check(typeof seed === 'bigint' || Number.isInteger(seed), 'seed must be an integer');
  return BigInt(seed);
}

/** The fields of grug_sampler_options that are numbers: where they are, and how they are written. */
const SAMPLER_FIELDS = {
  temperature: [16, 'setFloat32'],
  topP: [20, 'setFloat32'],
  minP: [24, 'setFloat32'],
  typicalP: [28, 'setFloat32'],
  topK: [32, 'setUint32'],
  penaltyWindow: [36, 'setUint32'],
  repeatPenalty: [40, 'setFloat32'],
  frequencyPenalty: [44, 'setFloat32'],
  presencePenalty: [48, 'setFloat32'],
  mirostatTau: [52, 'setFloat32'],
  mirostatEta: [56, 'setFloat32'],
};

const SAMPLER_OPTIONS_BYTES = 72;

export class Sampler extends Handle {
  /** With options; `forked` gives the library and the handle of a sampler that there is. */
  constructor(options = {}, forked = null) {
    const lib = forked?.lib ?? library();
    super(lib, forked?.handle ?? Sampler.#make(lib, options), lib.exports.grug_sampler_free);
  }

  static #make(lib, { seed = 0, utf8 = false, bias = null, grammar = null, ...numbers }) {
    check(grammar === null || grammar._lib === lib, 'the grammar belongs to another instance of the module');
    const offsets = bias === null ? new Uint8Array(0) : biasOf(bias);
    return lib.withBytes(offsets, (biasAt) =>
      lib.with(SAMPLER_OPTIONS_BYTES, (at) => {
        const view = lib.view(at, SAMPLER_OPTIONS_BYTES);
        view.setUint32(0, SAMPLER_OPTIONS_BYTES, true);
        view.setBigUint64(8, seedOf(seed), true);
        for (const [name, value] of Object.entries(numbers)) {
          const field = SAMPLER_FIELDS[name];
          check(field, `${name} is no option of a sampler`);
          if (value === undefined) continue;
          check(typeof value === 'number', `${name} must be a number`);
          if (field[1] === 'setUint32') {
            check(Number.isInteger(value) && value >= 0 && value < 2 ** 32, `${name} must be an integer, 0 or more`);
          }
          view[field[1]](field[0], value, true);
        }
        view.setUint32(60, utf8 ? 1 : 0, true);
        view.setUint32(64, bias === null ? 0 : biasAt, true);
        view.setUint32(68, grammar?._handle ?? 0, true);
        return lib.make('grug_sampler_new', at);
      }),
    );
  }

  fork() {
    return new Sampler({}, { lib: this._lib, handle: this._lib.make('grug_sampler_fork', this._handle) });
  }

  accept(byte) {
    check(Number.isInteger(byte) && byte >= 0 && byte < 256, 'a byte is 0 to 255');
    this._lib.call('grug_sampler_accept', this._handle, byte);
  }

  allowed() {
    return this._lib.with(32, (at) => {
      const complete = this._lib.call('grug_sampler_allowed', this._handle, at) === 1;
      const mask = this._lib.bytes(at, 32);
      const bytes = new Set();
      for (let byte = 0; byte < 256; byte++) if ((mask[byte >> 3] >> (byte & 7)) & 1) bytes.add(byte);
      return { bytes, complete };
    });
  }

  reset(seed = 0) {
    this._lib.call('grug_sampler_reset', this._handle, seedOf(seed));
  }

  pick(logits) {
    check(logits instanceof Float32Array && logits.length === 256, 'logits must be a Float32Array of 256');
    const bytes = new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
    return this._lib.withBytes(bytes, (at) => this._lib.call('grug_sampler_pick', this._handle, at));
  }
}
