/** Loads the module: from beside this file, or from what is given to the first call. `Model.load` does it by itself. */
export function init(
  source?: string | URL | Response | ArrayBuffer | ArrayBufferView | WebAssembly.Module,
): Promise<void>;

/** The version of libgrug; once the module is loaded. */
export function version(): string;

/** Text (as UTF-8) or bytes. */
export type Bytes = string | ArrayBuffer | ArrayBufferView;

/** Why generation ended: as many bytes as asked for, the model's end byte, a stop sequence, a complete grammar. */
export type StopReason = 'capacity' | 'end-byte' | 'sequence' | 'grammar';

/** What calls throw: `code` is the name of a status of grug.h, such as `GRUG_EFORMAT`. */
export interface GrugError extends Error {
  code: string;
  status: number;
}

export interface ModelInfo {
  params: number;
  weightBytes: number;
  /** A hash of configuration and weights. */
  fingerprint: bigint;
  /** What a prediction can look back on. */
  contextBytes: number;
  /** The most bytes of a saved session. */
  stateBytes: number;
  /** How far `rewind` always works. */
  rewindBytes: number;
  embeddingDim: number;
  /** The byte that ends a document. */
  endByte: number | null;
}

/** What a model can run on. */
export interface Device {
  name: string;
  /** What its maker calls it. */
  description: string;
  /** What it can do, separated by commas. */
  features: string;
  /** Bytes; 0 where unknown. */
  memoryTotal: number;
  /** Bytes; 0 where unknown. */
  memoryFree: number;
}

/** The devices there are, once the module is loaded: the CPU. */
export function devices(): Device[];

/** Immutable weights. Load them once and make a session for each stream. */
export class Model {
  private constructor();
  /** Loads a file's bytes, or fetches them: from a URL, in Node also a path. */
  static load(
    source: string | URL | Response | ArrayBuffer | ArrayBufferView,
    options?: {
      /** Logits the same bit by bit on every machine, more slowly. Compression needs it. */
      portable?: boolean;
      /** Told how much has arrived, between 0 and 1, where the server says how long the file is. */
      onProgress?: (fraction: number) => void;
      signal?: AbortSignal;
    },
  ): Promise<Model>;
  readonly info: ModelInfo;
  readonly metadata: Record<string, string>;
  createSession(options?: SessionOptions): Session;
  /** Compresses losslessly by what the model predicts, which must be portable. Less context is faster and worse. It keeps
   * the thread until it is done, as `decompress` does; `signal` is looked at before. */
  compress(data: Bytes, options?: Call & { maxContext?: number }): Promise<Uint8Array>;
  /** The original of an archive; `GRUG_ESPACE` where that is longer than `maxBytes` (1 GiB). */
  decompress(archive: ArrayBuffer | ArrayBufferView, options?: Call & { maxBytes?: number }): Promise<Uint8Array>;
  /** Frees the model; its sessions go on. What is forgotten is freed when it is collected. */
  close(): void;
}

/** What a sampler may write: immutable, for any number of samplers. The whole output is matched. Made when the module is
 * loaded: after `Model.load` or `init`. */
export class Grammar {
  private constructor();
  /** A regular expression in the syntax of Rust's regex crate; of a RegExp, its source. */
  static regex(source: string | RegExp): Grammar;
  /** GBNF, the notation of llama.cpp; the rule `root` is the text. */
  static gbnf(source: string): Grammar;
  /** A JSON Schema, as text or as an object: the text is one JSON value that is valid under it. */
  static jsonSchema(source: string | object): Grammar;
  /** Frees the handle; samplers that have the grammar go on. */
  close(): void;
}

/** The steps run in the order of grug.h; 0 turns each off. */
export interface SamplerOptions {
  /** 0 is greedy. */
  temperature?: number;
  topK?: number;
  typicalP?: number;
  topP?: number;
  minP?: number;
  penaltyWindow?: number;
  repeatPenalty?: number;
  frequencyPenalty?: number;
  presencePenalty?: number;
  mirostatTau?: number;
  mirostatEta?: number;
  /** Only ever extend to well-formed UTF-8. */
  utf8?: boolean;
  /** Added to the logits: 256 numbers, or those of some bytes. -Infinity bans a byte. */
  bias?: ArrayLike<number> | Map<number, number> | Record<number, number> | null;
  /** What may be written. */
  grammar?: Grammar | null;
  seed?: number | bigint;
}

/** Picks bytes. Made when the module is loaded: after `Model.load` or `init`. */
export class Sampler {
  constructor(options?: SamplerOptions);
  /** As new, with this seed. */
  reset(seed?: number | bigint): void;
  /** One that goes on as this one would. */
  fork(): Sampler;
  /** Takes a byte that was chosen elsewhere as if it had been picked here. */
  accept(byte: number): void;
  /** The bytes that bias, grammar and UTF-8 allow next, and whether the text may end here. */
  allowed(): { bytes: Set<number>; complete: boolean };
  /** Picks a byte from 256 logits. */
  pick(logits: Float32Array): number;
  close(): void;
}

export interface SessionOptions {
  /** How many bytes a prediction looks back on at most; 0 = the model's context. */
  maxContext?: number;
  /** When the context is full: forget the oldest bytes, or fail with `GRUG_EFULL`. */
  overflow?: 'slide' | 'error';
  /** Compute several bytes at once where the text repeats itself (the default). Only time depends on it. */
  drafts?: boolean;
}

export interface Call {
  /** Aborts the call; the session goes on afterwards, with what was done until then: a generation yields it before it throws. */
  signal?: AbortSignal;
}

export interface Generation extends Call {
  /** Greedy where there is none. */
  sampler?: Sampler | null;
  maxBytes?: number;
  /** The text ends after one of them; 1 to 256 bytes each. */
  stops?: Bytes[];
  /** Bytes of a piece; 1 shows each at once. */
  chunkBytes?: number;
}

/** One stream of bytes. A second call while one is in progress fails with `GRUG_EBUSY`. */
export class Session {
  constructor(model: Model, options?: SessionOptions);
  /** Bytes consumed so far: fed and generated. */
  readonly position: number;
  reset(): void;
  /** An independent session at this position. */
  fork(): Session;
  /** Takes in bytes. */
  feed(data: Bytes, options?: Call): Promise<void>;
  /** What the model writes, piece by piece; the event loop turns meanwhile. */
  bytes(options?: Generation): AsyncGenerator<Uint8Array, StopReason, void>;
  /** The same in whole characters of UTF-8. */
  text(options?: Generation): AsyncGenerator<string, StopReason, void>;
  /** The whole text; 400 bytes where `maxBytes` is not given. */
  generate(options?: Generation): Promise<string>;
  /** Takes in bytes and says how surprising they are, in nats. */
  score(data: Bytes, options?: Call): Promise<{ total: number; nats: Float32Array }>;
  /** 256 logits of the next byte. */
  logits(options?: Call): Promise<Float32Array>;
  /** The vector that the logits are computed from: `embeddingDim` numbers. */
  embedding(options?: Call): Promise<Float32Array>;
  /** Undoes the last n bytes, exactly. */
  rewind(n: number): void;
  /** The session as bytes, for `restore` here or on any machine. */
  save(): Uint8Array;
  restore(state: ArrayBuffer | ArrayBufferView): void;
  close(): void;
}

/** One step for many distinct sessions of one model: the byte that each took in, or what went wrong there, which stops no
 * other. A sampler of null is greedy; an `input` is fed instead of a picked byte. */
export function nextBatch(
  sessions: Session[],
  options?: Call & { samplers?: (Sampler | null)[]; input?: (number | null)[] },
): Promise<(number | GrugError)[]>;
