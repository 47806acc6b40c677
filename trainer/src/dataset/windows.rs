//! Where the windows of a step start.

use std::ops::Range;

use grug::error::{Error, Result};
use grug::rng::{Stream, words};

use super::Permutation;

/// Numbers of permutations from here on are not epochs.
const LEGACY_SPLIT: u32 = u32::MAX;

/// A set of windows that can be counted and found by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Where window 0 starts, in bytes from the start of the corpus.
    start: u64,
    stride: u64,
    count: u64,
    /// A random part of the grid, instead of all of it: the order, and which of its places are taken.
    part: Option<(Permutation, u64)>,
    /// Bytes after the last window that no window uses.
    slack: u64,
}

impl Windows {
    /// All windows of `window_bytes + 1` bytes that start at a multiple of `stride` in this span.
    pub fn of_span(span: &Range<u64>, window_bytes: usize, stride: usize) -> Windows {
        let (stride, room) = (stride as u64, span.end.saturating_sub(span.start));
        match room.checked_sub(window_bytes as u64 + 1) {
            Some(free) => Windows {
                start: span.start,
                stride,
                count: free / stride + 1,
                part: None,
                slack: free % stride,
            },
            None => Windows { start: span.start, stride, count: 0, part: None, slack: 0 },
        }
    }

    /// The published split: the windows of the whole corpus in a random order, of which the first `1 - fraction`
    /// train and the others validate. They overlap, so the validation loss leaks.
    pub fn legacy_split(
        len: u64,
        fraction: f64,
        window_bytes: usize,
        stride: usize,
        seed: u64,
    ) -> Result<(Windows, Windows)> {
        let all = Windows::of_span(&(0..len), window_bytes, stride);
        let validation = (all.count as f64 * fraction) as u64;
        if validation == 0 || validation == all.count {
            return Err(Error::invalid(format!(
                "the corpus of {len} bytes has {} windows, too few to train and to validate \
                 (validation_fraction = {fraction})",
                all.count
            )));
        }
        let order = Permutation::new(all.count, seed, Stream::Shuffle, LEGACY_SPLIT);
        let training = all.count - validation;
        let part = |from, count| Windows { count, part: Some((order, from)), slack: 0, ..all.clone() };
        Ok((part(0, training), part(training, validation)))
    }

    /// How many windows there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where window `index` starts, in bytes from the start of the corpus.
    pub fn offset(&self, index: u64) -> u64 {
        assert!(index < self.count, "window {index} of {}", self.count);
        let index = self.part.map_or(index, |(order, from)| order.at(from + index));
        self.start + index * self.stride
    }
}

/// The order of training windows. Window g of a run is window `g mod n` of epoch `g / n`; each epoch is another
/// permutation of all n windows. A batch may hold the end of one epoch and the beginning of the next.
#[derive(Debug, Clone)]
pub struct WindowSampler {
    windows: Windows,
    /// Windows an epoch.
    count: u64,
    /// Each epoch's windows start at one of this many bytes; 1 = always the same.
    shifts: u64,
    seed: u64,
    batch_size: u64,
    rank: u64,
    world_size: u64,
}

impl WindowSampler {
    /// Orders these windows for `batch_size` windows a step over all ranks, of which this is `rank`.
    ///
    /// With `shift_epochs` the windows of each epoch start at a random byte below the stride, and there may be one
    /// window less. A random part of a grid is never shifted: its windows would run into the others.
    pub fn new(
        windows: Windows,
        shift_epochs: bool,
        seed: u64,
        batch_size: usize,
        rank: usize,
        world_size: usize,
    ) -> Result<WindowSampler> {
        if windows.is_empty() {
            return Err(Error::invalid("the training part of the corpus has no window"));
        }
        if world_size == 0 || rank >= world_size || !batch_size.is_multiple_of(world_size) || batch_size == 0
        {
            return Err(Error::invalid(format!(
                "batch_size = {batch_size} cannot be shared by {world_size} ranks, of which this is number {rank}; \
                 it must be a multiple of their number"
            )));
        }
        // Dropping one window makes room to shift the others by up to a stride.
        let (count, shifts) = match (shift_epochs && windows.part.is_none(), windows.count) {
            (false, count) => (count, 1),
            (true, 1) => (1, windows.slack + 1),
            (true, count) => (count - 1, windows.stride),
        };
        let (batch_size, rank, world_size) = (batch_size as u64, rank as u64, world_size as u64);
        Ok(WindowSampler { windows, count, shifts, seed, batch_size, rank, world_size })
    }

    /// Windows in an epoch.
    pub fn windows_per_epoch(&self) -> u64 {
        self.count
    }

    /// Windows of a step on this rank.
    pub fn local_batch(&self) -> usize {
        (self.batch_size / self.world_size) as usize
    }

    /// Steps after which every window has been used in each of `epochs` epochs.
    pub fn steps_for(&self, epochs: u64) -> u64 {
        let steps = (epochs as u128 * self.count as u128).div_ceil(self.batch_size as u128);
        u64::try_from(steps).unwrap_or(u64::MAX)
    }

    /// Whole epochs that have been used up after `steps` steps.
    pub fn epochs_after(&self, steps: u64) -> u64 {
        (steps as u128 * self.batch_size as u128 / self.count as u128) as u64
    }

    /// Where this rank's windows of a step start, in bytes from the start of the corpus. `offsets` is cleared first.
    pub fn fill_batch(&self, step: u64, offsets: &mut Vec<u64>) {
        offsets.clear();
        let local = self.batch_size / self.world_size;
        let first = step as u128 * self.batch_size as u128 + (self.rank * local) as u128;
        let mut epoch = (first / self.count as u128) as u64;
        let mut index = (first % self.count as u128) as u64;
        let mut order = self.order(epoch);
        let mut shift = self.shift(epoch);
        for _ in 0..local {
            offsets.push(self.windows.offset(order.at(index)) + shift);
            index += 1;
            if index == self.count {
                (epoch, index) = (epoch + 1, 0);
                order = self.order(epoch);
                shift = self.shift(epoch);
            }
        }
    }

    fn order(&self, epoch: u64) -> Permutation {
        // Epochs are counted far below 2^32; one beyond would only repeat an order.
        Permutation::new(self.count, self.seed, Stream::Shuffle, epoch as u32 & !(1 << 31))
    }

    fn shift(&self, epoch: u64) -> u64 {
        let w = words(self.seed, Stream::Shuffle, 1 << 31, epoch);
        (u64::from(w[1]) << 32 | u64::from(w[0])) % self.shifts
    }
}

/// Where the windows that validate start: all of them, or a random part of this many, the same one every time for
/// this seed; 0 = all. In rising order.
pub fn validation_offsets(windows: &Windows, sample: usize, seed: u64) -> Vec<u64> {
    let count = windows.len();
    let picked = if sample == 0 { count } else { count.min(sample as u64) };
    let order = Permutation::new(count, seed, Stream::Validation, 0);
    let mut offsets: Vec<u64> = (0..picked)
        .map(|i| if picked == count { windows.offset(i) } else { windows.offset(order.at(i)) })
        .collect();
    offsets.sort_unstable();
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Split;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sampler(windows: &Windows, shift: bool, batch: usize, rank: usize, world: usize) -> WindowSampler {
        WindowSampler::new(windows.clone(), shift, 5, batch, rank, world).unwrap()
    }

    fn batch(sampler: &WindowSampler, step: u64) -> Vec<u64> {
        let mut offsets = Vec::new();
        sampler.fill_batch(step, &mut offsets);
        offsets
    }

    proptest! {
        /// No byte of a training window is a byte of a validation window, at any split, stride and shift.
        #[test]
        fn no_byte_is_shared(
            len in 200u64..4000, window in 1usize..40, stride in 1usize..50,
            fraction in 0.05f64..0.9, guard in 0usize..50, shift: bool,
        ) {
            let Ok(split) = Split::contiguous(len, fraction, guard, window) else { return Ok(()) };
            let windows = Windows::of_span(&split.train, window, stride);
            let sampler = sampler(&windows, shift, 4, 0, 1);
            let mut trained = BTreeSet::new();
            for step in 0..sampler.steps_for(3) {
                for offset in batch(&sampler, step) {
                    trained.extend(offset..=offset + window as u64);
                }
            }
            let last = *trained.last().unwrap();
            let validation = Windows::of_span(&split.validation, window, stride);
            for offset in validation_offsets(&validation, 0, 1) {
                prop_assert!(offset > last + guard as u64);
                prop_assert!(offset + (window as u64) < len);
            }
        }

        /// Each epoch uses every window once, however the steps cut it.
        #[test]
        fn an_epoch_is_every_window_once(count in 1u64..200, size in 1usize..9, shift: bool, epoch in 0u64..5) {
            let windows = Windows::of_span(&(10..10 + 8 * count + 4), 8, 8);
            let sampler = sampler(&windows, shift, size, 0, 1);
            let n = sampler.windows_per_epoch();
            let all: Vec<u64> = (0..sampler.steps_for(epoch + 1)).flat_map(|s| batch(&sampler, s)).collect();
            let used: BTreeSet<u64> =
                all[(epoch * n) as usize..((epoch + 1) * n) as usize].iter().copied().collect();
            prop_assert_eq!(used.len() as u64, n);
            prop_assert!(n + 1 >= windows.len());
            prop_assert!(used.iter().map(|o| o % 8).collect::<BTreeSet<_>>().len() == 1);
        }
    }

    #[test]
    fn any_step_is_found_without_the_steps_before_it() {
        let windows = Windows::of_span(&(0..100_000), 64, 3);
        let straight = sampler(&windows, true, 24, 0, 1);
        let all: Vec<Vec<u64>> = (0..3000).map(|step| batch(&straight, step)).collect();
        let resumed = sampler(&windows, true, 24, 0, 1);
        for step in [2999, 0, 1500, 1388, 1389] {
            assert_eq!(batch(&resumed, step), all[step as usize]);
        }
        assert_ne!(all[0], all[1]);
    }

    #[test]
    fn ranks_share_the_batch_of_one() {
        let windows = Windows::of_span(&(0..5000), 16, 16);
        let one = sampler(&windows, true, 12, 0, 1);
        for step in 0..60 {
            let together: Vec<u64> =
                (0..3).flat_map(|rank| batch(&sampler(&windows, true, 12, rank, 3), step)).collect();
            assert_eq!(together, batch(&one, step));
        }
        assert!(WindowSampler::new(windows, true, 1, 10, 0, 3).unwrap_err().message().contains("multiple"));
    }

    #[test]
    fn epochs_differ_in_order_and_in_cut() {
        let windows = Windows::of_span(&(0..64 * 100 + 1), 64, 64);
        let sampler = sampler(&windows, true, 99, 0, 1);
        assert_eq!((windows.len(), sampler.windows_per_epoch()), (100, 99));
        let cuts: BTreeSet<u64> = (0..20).map(|epoch| batch(&sampler, epoch)[0] % 64).collect();
        assert!(cuts.len() > 10, "{cuts:?}");
        assert_eq!((sampler.steps_for(2), sampler.epochs_after(1), sampler.epochs_after(2)), (2, 1, 2));
        // As many epochs as a configuration can name, of more windows than a step has.
        let long = WindowSampler::new(windows, true, 5, 2, 0, 1).unwrap();
        assert_eq!(long.steps_for(i64::MAX as u64), u64::MAX);
    }

    #[test]
    fn the_legacy_split_covers_the_grid_once_and_leaks() {
        let (train, validation) = Windows::legacy_split(1000, 0.1, 32, 8, 3).unwrap();
        let starts = |w: &Windows| -> BTreeSet<u64> { (0..w.len()).map(|i| w.offset(i)).collect() };
        let (train, validation) = (starts(&train), starts(&validation));
        assert!(train.is_disjoint(&validation));
        let grid: BTreeSet<u64> = (0..=(1000 - 33) / 8).map(|i| i * 8).collect();
        assert_eq!(train.union(&validation).copied().collect::<BTreeSet<_>>(), grid);
        let leaks = validation.iter().filter(|&&v| train.iter().any(|&t| t.abs_diff(v) <= 32)).count();
        assert_eq!(leaks, validation.len());
        assert!(Windows::legacy_split(40, 0.1, 32, 8, 3).is_err());
    }

    #[test]
    fn a_validation_sample_stays_the_same() {
        let windows = Windows::of_span(&(100..10_000), 16, 16);
        let sample = validation_offsets(&windows, 50, 9);
        assert_eq!(sample, validation_offsets(&windows, 50, 9));
        assert_ne!(sample, validation_offsets(&windows, 50, 10));
        assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), 50);
        assert_eq!(validation_offsets(&windows, 0, 9).len() as u64, windows.len());
        assert_eq!(validation_offsets(&windows, 1 << 40, 9), validation_offsets(&windows, 0, 9));
    }
}
