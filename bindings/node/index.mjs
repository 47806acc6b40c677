import grug from './index.cjs';

export const { Model, Session, Sampler, Grammar, nextBatch, devices, version } = grug;
