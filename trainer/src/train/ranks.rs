//! What several ranks know together: the state of each one's random generators in a checkpoint, and a checkpoint that one
//! of them has read.

use grug::error::{Error, Result};
use tch::{Device, Tensor};

use super::Trainer;
use crate::average::WeightAverage;
use crate::state::Progress;
use crate::torch;

fn bytes(state: &Tensor) -> Vec<u8> {
    Vec::try_from(state.view([-1])).expect("the state of a generator is bytes")
}

impl Trainer<'_> {
    /// The state of a random generator under this name, and of those of the other ranks under names with their numbers.
    pub(super) fn random_states(&self, name: &str, device: Device) -> Result<Vec<(String, Tensor)>> {
        let own = torch::random_state(device)?;
        let Some(team) = &self.place.team else { return Ok(vec![(name.to_owned(), own)]) };
        let named = |(rank, state): (usize, Vec<u8>)| {
            let name = if rank == 0 { name.to_owned() } else { format!("{name}.{rank}") };
            (name, Tensor::from_slice(&state))
        };
        Ok(team.collect(&bytes(&own))?.into_iter().enumerate().map(named).collect())
    }

    /// Gives all ranks what rank 0 has restored; `random` has the random states of the others, for as many as there
    /// were when they were saved. A rank that there was not keeps its fresh one.
    pub(super) fn restore_everywhere(&mut self, random: &[(String, Tensor)]) -> Result<()> {
        let Some(team) = self.place.team.clone() else { return Ok(()) };
        let average = self.average.iter().flat_map(WeightAverage::state);
        let tensors: Vec<Tensor> =
            self.state_tensors().into_iter().chain(average).map(|(_, tensor)| tensor).collect();
        team.broadcast(&tensors)?;
        let progress = team.scatter("resume/progress", || {
            let progress = Progress { schedule: self.schedule.state().clone(), ..self.progress.clone() };
            Ok(vec![serde_json::to_vec(&progress).expect("numbers and lists of them"); team.size()])
        })?;
        if team.rank() > 0 {
            self.progress = serde_json::from_slice(&progress)
                .map_err(|e| Error::format(format!("rank 0 sent a damaged progress: {e}")))?;
            self.schedule.restore(self.progress.schedule.clone())?;
        }
        for (name, device) in self.generators() {
            let state = team.scatter(&format!("resume/{name}"), || {
                let of = |rank: usize| {
                    let name = format!("{name}.{rank}");
                    random.iter().find(|state| state.0 == name).map_or(Vec::new(), |state| bytes(&state.1))
                };
                Ok((0..team.size()).map(of).collect())
            })?;
            if team.rank() > 0 && !state.is_empty() {
                torch::set_random_state(device, &Tensor::from_slice(&state))?;
            }
        }
        Ok(())
    }
}
