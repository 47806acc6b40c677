import grug from './index.cjs';

export const { Model, Session, Sampler, version } = grug;
