import grug from './index.cjs';

export const { Model, Session, Sampler, Grammar, nextBatch, version } = grug;
