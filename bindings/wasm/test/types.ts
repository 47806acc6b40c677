// Compiled, never run: what the types allow, and what they must refuse.
import { Grammar, Model, Sampler, Session, devices, init, nextBatch, version } from 'grug-wasm';
import type { Device, GrugError, StopReason } from 'grug-wasm';

async function uses(): Promise<void> {
  const signal = new AbortController().signal;
  await init(new ArrayBuffer(8));
  const cpu: Device | undefined = devices()[0];
  const model: Model = await Model.load(new URL('file:///model'), { portable: true, signal });
  await Model.load(new Response('x'), { onProgress: (fraction: number) => console.log(fraction) });
  const end: number | null = model.info.endByte;
  const session: Session = model.createSession({ maxContext: 100, overflow: 'error', drafts: false });
  await session.feed('text', { signal });
  const grammar = Grammar.jsonSchema({ type: 'boolean' });
  const sampler = new Sampler({ temperature: 1, seed: 5n, bias: { 10: -Infinity }, grammar, utf8: true });
  sampler.accept(65);
  const { bytes, complete }: { bytes: Set<number>; complete: boolean } = sampler.fork().allowed();
  for await (const piece of session.fork().text({ maxBytes: 10, sampler })) console.log(piece.toUpperCase(), bytes, complete);
  const last: IteratorResult<string, StopReason> = await session.text().next();
  const embedding: Float32Array = await session.embedding();
  for (const outcome of await nextBatch([session], { samplers: [null], input: [65] })) {
    if (typeof outcome === 'number') console.log(outcome + 1);
    else console.log((outcome satisfies GrugError).status);
  }
  const archive: Uint8Array = await model.compress('text', { maxContext: 16 });
  await model.decompress(archive, { maxBytes: 100 });
  session.restore(session.save());
  console.log(version().length, cpu?.name, end, last, embedding);

  // @ts-expect-error a model is loaded, not made
  new Model();
  // @ts-expect-error a sampler has no such option
  new Sampler({ temprature: 1 });
  // @ts-expect-error a grammar is compiled from a source
  Grammar.regex(5);
}

void uses;
