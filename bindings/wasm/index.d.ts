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

/** Immutable weights. Load them once and make a session for each stream. */
export class Model {
  private constructor();
  /** Loads a file's bytes, or fetches them: from a URL, in Node also a path. */
  static load(
    source: string | URL | Response | ArrayBuffer | ArrayBufferView,
    options?: {
      /** Told how much has arrived, between 0 and 1, where the server says how long the file is. */
      onProgress?: (fraction: number) => void;
      signal?: AbortSignal;
    },
  ): Promise<Model>;
  readonly info: ModelInfo;
  readonly metadata: Record<string, string>;
  createSession(options?: SessionOptions): Session;
  /** Frees the model; its sessions go on. What is forgotten is freed when it is collected. */
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
  seed?: number | bigint;
}

/** Picks bytes. Made when the module is loaded: after `Model.load` or `init`. */
export class Sampler {
  constructor(options?: SamplerOptions);
  /** As new, with this seed. */
  reset(seed?: number | bigint): void;
  /** Picks a byte from 256 logits. */
  pick(logits: Float32Array): number;
  close(): void;
}

export interface SessionOptions {
  /** How many bytes a prediction looks back on at most; 0 = the model's context. */
  maxContext?: number;
  /** When the context is full: forget the oldest bytes, or fail with `GRUG_EFULL`. */
  overflow?: 'slide' | 'error';
}

export interface Call {
  /** Aborts the call; the session goes on afterwards, with what was done until then. */
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
  /** Undoes the last n bytes, exactly. */
  rewind(n: number): void;
  /** The session as bytes, for `restore` here or on any machine. */
  save(): Uint8Array;
  restore(state: ArrayBuffer | ArrayBufferView): void;
  close(): void;
}
