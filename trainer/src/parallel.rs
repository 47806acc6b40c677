//! Several processes that train one model, each on its share of every step's windows.
//!
//! A launcher (`torchrun`, or anything else that sets `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`) starts
//! the same command on every rank. What must stay true: every rank takes the same decisions, because each of them
//! follows from numbers that all have; and rank 0 alone writes files and shows anything.
//!
//! A rank that is lost ends all: exchanges with it fail, and where they do not (a GPU waits for as long as it takes), a
//! thread on every rank notices that its heartbeat has stopped.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grug::error::{Error, ErrorKind, Result};
use tch::{Device, Tensor};

use crate::config::ParallelConfig;
use crate::telemetry::tell;
use crate::torch::{self, Group, Store};

/// Time between heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// A rank whose heartbeat stands still for so long is lost.
const SILENCE: Duration = Duration::from_secs(30);
/// How long an exchange that failed waits for the others to say that they are there.
const ROLL_CALL: Duration = Duration::from_secs(10);
/// The key under which the first rank that notices says why all must end.
const LOST: &str = "lost";

/// This process among those that a launcher started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Its number among those on the same machine, which is also the number of its GPU.
    pub local_rank: usize,
    /// Where rank 0, or the launcher, keeps the store in which all meet.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The launcher keeps the store; keys begin with this.
    pub launchers_store: Option<String>,
}

impl Ranks {
    /// What the environment says; `None` where no launcher started this process, or only one.
    pub fn from_env() -> Result<Option<Ranks>> {
        Ranks::from(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from(get: impl Fn(&str) -> Option<String>) -> Result<Option<Ranks>> {
        let number = |name: &str| match get(name) {
            None => Ok(None),
            Some(value) => value
                .parse::<usize>()
                .map(Some)
                .map_err(|_| Error::invalid(format!("{name} = {value:?} in the environment: not a number"))),
        };
        let (rank, size) = match (number("RANK")?, number("WORLD_SIZE")?) {
            (None, None) | (None | Some(0), Some(1)) => return Ok(None),
            (Some(rank), Some(size)) if rank < size => (rank, size),
            (rank, size) => {
                let show = |n: Option<usize>| n.map_or("unset".to_string(), |n| n.to_string());
                return Err(Error::invalid(format!(
                    "RANK is {} and WORLD_SIZE is {} in the environment: a launcher sets both, the first below the \
                     second",
                    show(rank),
                    show(size)
                )));
            }
        };
        let host = get("MASTER_ADDR");
        let port = get("MASTER_PORT").and_then(|port| port.parse().ok());
        let (Some(host), Some(port)) = (host, port) else {
            return Err(Error::invalid(format!(
                "this is rank {rank} of {size}, but MASTER_ADDR and MASTER_PORT in the environment do not say where \
                 the ranks meet"
            )));
        };
        Ok(Some(Ranks {
            rank,
            size,
            local_rank: number("LOCAL_RANK")?.unwrap_or(rank),
            host,
            port,
            // torchrun keeps the store itself and counts how often it has started the ranks.
            launchers_store: (get("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True")).then(|| {
                format!("/worker/attempt_{}", get("TORCHELASTIC_RESTART_COUNT").unwrap_or("0".into()))
            }),
        }))
    }

    /// Connects to the store, and keeps it where `keep` says that it may be this process that does.
    fn connect(&self, keep: bool, timeout: Duration) -> Result<Store> {
        let (server, prefix) = match &self.launchers_store {
            Some(prefix) => (false, prefix.as_str()),
            None => (keep && self.rank == 0, "grug"),
        };
        Store::connect(&self.host, self.port, server, prefix, timeout).map_err(|e| {
            Error::new(
                e.kind(),
                format!("rank {} does not reach {}:{}: {e}", self.rank, self.host, self.port),
            )
        })
    }
}

/// The ranks of a run, connected.
#[derive(Debug)]
pub struct Team {
    // Freed in this order: the heartbeat first, the store that others may still read last.
    watch: Watch,
    group: Group,
    store: Store,
    ranks: Ranks,
}

impl Team {
    /// Meets the others, who must all do the same.
    pub fn join(ranks: &Ranks, device: Device, config: &ParallelConfig) -> Result<Team> {
        let timeout = Duration::from_secs(config.timeout_seconds);
        let store = ranks.connect(true, timeout)?;
        let group = Group::join(&store, &ranks.host, ranks.rank, ranks.size, device, timeout)?;
        let watch = Watch::start(ranks, timeout)?;
        Ok(Team { watch, group, store, ranks: ranks.clone() })
    }

    /// Number of this process.
    pub fn rank(&self) -> usize {
        self.ranks.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.ranks.size
    }

    /// Replaces tensors by rank 0's.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        self.explained(self.group.broadcast(tensors))
    }

    /// Replaces numbers by their sums over all ranks. Waits for all of them.
    pub fn sum(&self, values: &mut [f64]) -> Result<()> {
        self.explained(self.group.sum(values))
    }

    /// From now on, [`finish`](Self::finish) averages the gradients of these parameters.
    pub fn watch_gradients(&self, params: &[Tensor], bucket_bytes: usize) -> Result<()> {
        self.explained(self.group.watch(params, bucket_bytes))
    }

    /// Comes before the backward pass that completes a step's gradients.
    pub fn expect(&self, raised: bool) -> Result<()> {
        self.explained(self.group.expect(raised))
    }

    /// Comes after it: gradients are means over all ranks from here on. Whether some rank had `raised` set.
    pub fn finish(&self) -> Result<bool> {
        self.explained(self.group.finish())
    }

    /// Every rank's bytes, in order of ranks; the same number of them on each.
    pub fn collect(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        // As sums of numbers of which one rank has any.
        let mut all = vec![0.0; bytes.len() * self.size()];
        let own = all[self.rank() * bytes.len()..].iter_mut();
        own.zip(bytes).for_each(|(place, &byte)| *place = f64::from(byte));
        self.sum(&mut all)?;
        Ok(all.chunks(bytes.len().max(1)).map(|part| part.iter().map(|&n| n as u8).collect()).collect())
    }

    /// What rank 0 has for this rank; `all` is asked on rank 0 alone. `key` must be new.
    pub fn scatter(&self, key: &str, all: impl FnOnce() -> Result<Vec<Vec<u8>>>) -> Result<Vec<u8>> {
        if self.rank() == 0 {
            for (rank, bytes) in all()?.iter().enumerate() {
                self.store.set(&format!("{key}/{rank}"), bytes)?;
            }
        }
        self.explained(self.store.get(&format!("{key}/{}", self.rank())))
    }

    /// Waits for all ranks.
    pub fn meet(&self) -> Result<()> {
        self.sum(&mut [0.0])
    }

    /// That a number is the same on every rank as on rank 0.
    pub fn agree(&self, what: &str, value: u64) -> Result<()> {
        let first = Tensor::from(value as i64);
        self.broadcast(&[first.shallow_clone()])?;
        match first.int64_value(&[]) as u64 {
            same if same == value => Ok(()),
            other => Err(Error::new(
                ErrorKind::Mismatch,
                format!("{what}: {value} on rank {}, {other} on rank 0", self.rank()),
            )),
        }
    }

    /// Waits for all ranks, after which none of them is missed.
    pub fn part(&self) -> Result<()> {
        self.meet()?;
        self.watch.end();
        Ok(())
    }

    /// Tells the others why this rank ends, and ends it.
    pub fn fail(&self, error: &Error) -> ! {
        if !self.watch.announced.swap(true, Ordering::SeqCst) {
            tell(format_args!("error: {error}"));
            let told = format!("rank {} of {} ended: {error}", self.rank(), self.size());
            if self.store.set(LOST, told.as_bytes()).is_ok() {
                // Heartbeats bring it to the others; this process may be the one that keeps the store.
                std::thread::sleep(2 * BEAT);
            }
        }
        torch::leave(1)
    }

    /// An exchange that failed, with the name of the rank that it failed for.
    fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match self.roll_call() {
            Ok(missing) if missing.is_empty() => error,
            Ok(missing) => lost(&missing, &self.ranks),
            // Whoever kept the store is gone.
            Err(_) => lost(&[0], &self.ranks),
        })
    }

    /// The ranks that do not answer. Ends as soon as all or all but one have.
    fn roll_call(&self) -> Result<Vec<usize>> {
        let here = |rank: usize| format!("here/{rank}");
        self.store.set(&here(self.rank()), b"")?;
        let start = Instant::now();
        loop {
            let mut missing = Vec::new();
            for rank in 0..self.size() {
                if !self.store.has(&here(rank))? {
                    missing.push(rank);
                }
            }
            if missing.is_empty() || start.elapsed() > ROLL_CALL || missing.len() == 1 && self.size() > 2 {
                return Ok(missing);
            }
            // Of two ranks, the other one may only be slower to notice, or have an error of its own to tell.
            if self.size() == 2 && start.elapsed() > 2 * BEAT {
                return Ok(missing);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What to say when ranks are lost.
fn lost(missing: &[usize], ranks: &Ranks) -> Error {
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let (word, verb) = if missing.len() == 1 { ("rank", "is") } else { ("ranks", "are") };
    let keeper = match &ranks.launchers_store {
        Some(_) if missing == [0] => " (or the launcher)",
        _ => "",
    };
    Error::new(
        ErrorKind::Device,
        format!(
            "{word} {}{keeper} of {} {verb} lost: the process ended, hangs, or cannot be reached. All ranks stop; the \
             last checkpoint is untouched, and starting all of them again with --resume goes on from there",
            names.join(", "),
            ranks.size
        ),
    )
}

/// The heartbeat of this rank, and an eye on the others'.
#[derive(Debug)]
struct Watch {
    ended: Arc<AtomicBool>,
    /// Somebody has said on this rank why it ends.
    announced: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    fn start(ranks: &Ranks, timeout: Duration) -> Result<Watch> {
        // A connection of its own: the other one may be waiting for an answer.
        let store = ranks.connect(false, timeout)?;
        let (ended, announced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let seen = Arc::new(std::sync::Mutex::new(vec![Instant::now(); ranks.size]));
        let beat = {
            let (ranks, ended, announced, seen) =
                (ranks.clone(), ended.clone(), announced.clone(), seen.clone());
            std::thread::spawn(move || beat(&store, &ranks, &ended, &announced, &seen))
        };
        let eye = {
            let (ranks, ended, announced) = (ranks.clone(), ended.clone(), announced.clone());
            std::thread::spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    std::thread::park_timeout(BEAT);
                    let seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    let silent: Vec<usize> =
                        (0..ranks.size).filter(|&rank| seen[rank].elapsed() > SILENCE).collect();
                    drop(seen);
                    // Where nobody is heard, it is the store that is gone.
                    let missing = if silent.len() == ranks.size { vec![0] } else { silent };
                    if !missing.is_empty() && !ended.load(Ordering::SeqCst) {
                        announce(&announced, &lost(&missing, &ranks).to_string());
                    }
                }
            })
        };
        Ok(Watch { ended, announced, threads: vec![beat, eye] })
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(|thread| thread.thread().unpark());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Says why this process ends, unless that was said, and ends it.
fn announce(announced: &AtomicBool, text: &str) {
    if !announced.swap(true, Ordering::SeqCst) {
        tell(format_args!("error: {text}"));
        torch::leave(1);
    }
}

/// Tells the store that this rank lives, and notes when others said so.
fn beat(
    store: &Store,
    ranks: &Ranks,
    ended: &AtomicBool,
    announced: &AtomicBool,
    seen: &std::sync::Mutex<Vec<Instant>>,
) {
    let mut last: Vec<Vec<u8>> = vec![Vec::new(); ranks.size];
    let key = |rank: usize| format!("beat/{rank}");
    let mut count = 0u64;
    while !ended.load(Ordering::SeqCst) {
        count += 1;
        // A store that fails is a store from which nobody is heard: the eye notices.
        let _ = store.set(&key(ranks.rank), &count.to_le_bytes());
        for (rank, last) in last.iter_mut().enumerate() {
            if store.has(&key(rank)).unwrap_or(false)
                && let Ok(now) = store.get(&key(rank))
                && now != *last
            {
                *last = now;
                seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[rank] = Instant::now();
            }
        }
        if store.has(LOST).unwrap_or(false)
            && let Ok(text) = store.get(LOST)
            && !ended.load(Ordering::SeqCst)
        {
            announce(announced, &String::from_utf8_lossy(&text));
        }
        std::thread::park_timeout(BEAT);
    }
}

/// Where a run computes: a device, and the other ranks where there are some.
#[derive(Debug, Clone)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// The ranks, this one included.
    pub team: Option<Rc<Team>>,
}

impl From<Device> for Place {
    fn from(device: Device) -> Place {
        Place { device, team: None }
    }
}

impl Place {
    /// Number of this process, 0 where it is alone.
    pub fn rank(&self) -> usize {
        self.team.as_ref().map_or(0, |team| team.rank())
    }

    /// How many processes train together.
    pub fn size(&self) -> usize {
        self.team.as_ref().map_or(1, |team| team.size())
    }

    /// Whether this process is the one that writes files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(pairs: &[(&str, &str)]) -> Result<Option<Ranks>> {
        Ranks::from(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn the_environment_of_a_launcher() {
        assert_eq!(ranks(&[]).unwrap(), None);
        assert_eq!(ranks(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        let place = [("MASTER_ADDR", "node1"), ("MASTER_PORT", "29500")];
        let of = |extra: &[(&'static str, &'static str)]| ranks(&[&place[..], extra].concat());
        let plain = of(&[("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")]).unwrap().unwrap();
        assert_eq!((plain.rank, plain.size, plain.local_rank, plain.port), (5, 8, 1, 29500));
        assert_eq!((plain.host.as_str(), &plain.launchers_store), ("node1", &None));
        let torchrun = of(&[("RANK", "1"), ("WORLD_SIZE", "2"), ("TORCHELASTIC_USE_AGENT_STORE", "True")])
            .unwrap()
            .unwrap();
        assert_eq!(torchrun.launchers_store.as_deref(), Some("/worker/attempt_0"));
        for (wrong, part) in [
            (of(&[("RANK", "2"), ("WORLD_SIZE", "2")]), "WORLD_SIZE is 2"),
            (of(&[("RANK", "2")]), "unset"),
            (of(&[("RANK", "x"), ("WORLD_SIZE", "2")]), "not a number"),
            (ranks(&[("RANK", "0"), ("WORLD_SIZE", "2")]), "MASTER_ADDR"),
        ] {
            let error = wrong.unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
    }
}
