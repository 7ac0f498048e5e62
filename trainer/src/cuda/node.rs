//! All ranks of one process: each command runs on every rank at once, on a thread each.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use super::gpu::{GpuError, Stream};
use super::layout::Layout;
use super::plan::{Plan, Region, Work};
use super::rank::{Rank, Shape};
use super::seats::Seat;
use crate::engine::rotary_tables;
use crate::model::config::ModelConfig;

/// The ranks.
pub(super) struct Node {
    pub(super) ranks: Vec<Rank>,
    pub(super) shape: Arc<Shape>,
}

impl Node {
    /// Takes the seats, one a rank in the order of the ranks, and allocates all that will ever be needed.
    pub(super) fn new(
        seats: Vec<Seat>,
        config: &ModelConfig,
        work: Work,
    ) -> Result<Self, GpuError> {
        let layout = Layout::new(config, seats.len());
        let plan = Plan::new(config, &layout, work);
        let shape = Arc::new(Shape { config: config.clone(), layout, plan });
        let made = thread::scope(|scope| {
            let make = |seat: Seat| {
                let shape = shape.clone();
                scope.spawn(move || {
                    let Seat { gpu, collective } = seat;
                    let free = gpu.memory()?.0;
                    let wanted = shape.plan.bytes();
                    if wanted > free {
                        let error = GpuError::OutOfMemory { wanted, free };
                        collective.abort(&error);
                        return Err(error);
                    }
                    Rank::new(gpu, collective, shape)
                })
            };
            let threads: Vec<_> = seats.into_iter().map(make).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(died())))
                .collect()
        });
        let mut node = Self { ranks: first_cause(made)?, shape };
        let (cos, sin) = rotary_tables(config);
        node.all(|rank| {
            let at = rank.region(Region::Rotary);
            let half = rank.shape.plan.region(Region::Rotary) / 2;
            rank.gpu.upload(Stream::Compute, at, bytemuck::cast_slice(&cos))?;
            rank.gpu.upload(Stream::Compute, at.plus(half), bytemuck::cast_slice(&sin))
        })?;
        Ok(node)
    }

    /// Calls every rank at once; the results in the order of the ranks. A rank that fails ends the others' waits; the error
    /// is that of the rank that failed first by itself.
    pub(super) fn all<T: Send>(
        &mut self,
        call: impl Fn(&mut Rank) -> Result<T, GpuError> + Sync,
    ) -> Result<Vec<T>, GpuError> {
        let call = |rank: &mut Rank| {
            let result =
                catch_unwind(AssertUnwindSafe(|| call(rank))).unwrap_or_else(|_| Err(died()));
            if let Err(error) = &result {
                rank.collective.abort(error);
            }
            result
        };
        if let [rank] = &mut self.ranks[..] {
            return Ok(vec![call(rank)?]);
        }
        let results = thread::scope(|scope| {
            let call = &call;
            let start = |rank| scope.spawn(move || call(rank));
            let threads: Vec<_> = self.ranks.iter_mut().map(start).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(died())))
                .collect()
        });
        first_cause(results)
    }
}

fn died() -> GpuError {
    GpuError::Failed { call: "a rank's thread".into(), reason: "it panicked".into() }
}

/// All results, or the error that caused the others.
fn first_cause<T>(results: Vec<Result<T, GpuError>>) -> Result<Vec<T>, GpuError> {
    let mut values = Vec::with_capacity(results.len());
    let mut caused: Option<GpuError> = None;
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => match caused {
                Some(ref known) if !matches!(known, GpuError::Rank { .. }) => {}
                _ => caused = Some(error),
            },
        }
    }
    caused.map_or(Ok(values), Err)
}
