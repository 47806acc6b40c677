//! What a person sees of a training run, and what stays of it.
//!
//! [`Journal`] is the one thing the training loop talks to. It shows a progress bar (plain lines where the error
//! output is no terminal) and writes, into the run's folder, `metrics.jsonl`, TensorBoard event files and, at the end,
//! `loss.svg`. [`RunFolder`] keeps what the run was: its resolved configuration, its command line, its versions.
//! [`Plan`] is what `--dry-run` prints.
//!
//! What must stay true: nothing here waits for the device. The loop reads its loss back every `log_every` steps and
//! hands it over; [`Journal::tick`] in between costs nothing.

mod flops;
mod journal;
pub mod memory;
mod metrics;
mod peak;
mod plan;
mod plot;
mod plot_range;
mod progress;
mod run_folder;
mod table;
pub mod tensorboard;
pub mod units;

pub use flops::forward_flops;
pub use journal::{Journal, JournalOptions, TrainRecord, ValidationRecord};
pub use metrics::{MetricsFile, Series, read_series};
pub use peak::peak_flops;
pub use plan::Plan;
pub use plot::{Curves, draw as draw_plot};
pub use plot_range::{RangePoint, draw_range};
pub use progress::{ByteProgress, Progress, tell};
pub use run_folder::RunFolder;
pub use table::Table;
