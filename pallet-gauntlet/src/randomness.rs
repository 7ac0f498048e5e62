//! Gives seeds from the hash of the block before, for chains that have nothing better.

use core::marker::PhantomData;

use frame_support::traits::Randomness;
use frame_system::pallet_prelude::BlockNumberFor;
use sp_runtime::{traits::One, Saturating};

/// The hash of the parent block, which its author can choose among as many as it can compute in a slot.
///
/// Nobody knows it a block early, and whoever writes no block has no say in it. For development and tests.
pub struct InsecureParentHash<T>(PhantomData<T>);

impl<T: frame_system::Config> Randomness<T::Hash, BlockNumberFor<T>> for InsecureParentHash<T> {
    fn random(_subject: &[u8]) -> (T::Hash, BlockNumberFor<T>) {
        let now = frame_system::Pallet::<T>::block_number();
        (frame_system::Pallet::<T>::parent_hash(), now.saturating_sub(One::one()))
    }
}
