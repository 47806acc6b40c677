// Compiled, never run: what the types allow, and what they must refuse.
import { Grammar, Model, Sampler, Session, nextBatch, version } from 'grug';
import type { GrugError, LogLevel, StopReason } from 'grug';

async function uses(): Promise<void> {
  const signal = new AbortController().signal;
  const log = (level: LogLevel, line: string) => console.log(level, line);
  const model: Model = await Model.load(new URL('file:///model'), { threads: 1, portable: true, signal, log });
  await Model.load(new Uint8Array(3), { onProgress: (fraction: number) => console.log(fraction) });
  const end: number | null = model.info.endByte;
  const note: string | undefined = model.metadata['note'];
  const session: Session = model.createSession({ maxContext: 100, overflow: 'error' });
  await session.feed('text', { signal });
  await session.feed(new Uint16Array(4));
  const grammar = Grammar.jsonSchema({ type: 'boolean' });
  const sampler = new Sampler({ temperature: 1, seed: 5n, bias: { 10: -Infinity }, grammar, utf8: true });
  const { bytes, complete }: { bytes: Set<number>; complete: boolean } = sampler.fork().allowed();
  for await (const piece of session.bytes({ sampler, stops: ['\n', new Uint8Array(1)] })) {
    const part: Uint8Array = piece;
    console.log(part, bytes, complete);
  }
  for await (const piece of session.fork().text({ maxBytes: 10 })) console.log(piece.toUpperCase());
  const pieces: AsyncIterable<Uint8Array> = session.bytes();
  const last: IteratorResult<string, StopReason> = await session.text().next();
  if (last.done) console.log(last.value === 'grammar');
  const { total, nats }: { total: number; nats: Float32Array } = await session.score('x');
  const embedding: Float32Array = await session.embedding();
  for (const outcome of await nextBatch([session], { samplers: [null], input: [65] })) {
    if (typeof outcome === 'number') console.log(outcome + 1);
    else console.log((outcome satisfies GrugError).status);
  }
  const archive: Uint8Array = await model.compress('text', { maxContext: 16 });
  await model.decompress(archive, { maxBytes: 100 });
  session.restore(session.save());
  console.log(version.length, end, note, pieces, total, nats, embedding);

  // @ts-expect-error a model is loaded, not made
  new Model();
  // @ts-expect-error numbers are no text
  await session.feed(17);
  // @ts-expect-error there is no such way to overflow
  model.createSession({ overflow: 'explode' });
  // @ts-expect-error a sampler has no such option
  new Sampler({ temprature: 1 });
  // @ts-expect-error a grammar is compiled from a source
  Grammar.regex(5);
}

void uses;
