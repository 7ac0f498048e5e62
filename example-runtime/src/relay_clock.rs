//! Stands for what cumulus knows of the relay chain: the number of the block that this block was built on.
//!
//! A parachain has it from `cumulus_pallet_parachain_system`, whose inherent puts the relay chain's data into each block.
//! Here the author puts in the number alone. Hooks that run before the inherent see the number of the block before.

pub use pallet::*;

#[frame_support::pallet]
pub mod pallet {
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use sp_inherents::MakeFatalError;
    use sp_runtime::traits::BlockNumberProvider;

    /// Where the author of a block puts the relay chain's number.
    pub const IDENTIFIER: InherentIdentifier = *b"relayblk";

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config {}

    /// The relay chain's block on which the last block was built. Written once a block, by the inherent.
    #[pallet::storage]
    pub type RelayBlock<T> = StorageValue<_, u32, ValueQuery>;

    #[pallet::error]
    pub enum Error<T> {
        /// The relay chain does not go back.
        Earlier,
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Says on which block of the relay chain this block was built.
        ///
        /// ## Dispatch Origin
        ///
        /// An inherent.
        ///
        /// ## Errors
        ///
        /// An earlier block than before.
        #[pallet::call_index(0)]
        #[pallet::weight((T::DbWeight::get().reads_writes(1, 1), DispatchClass::Mandatory))]
        pub fn set_relay_block(origin: OriginFor<T>, number: u32) -> DispatchResult {
            ensure_none(origin)?;
            ensure!(number >= RelayBlock::<T>::get(), Error::<T>::Earlier);
            RelayBlock::<T>::put(number);
            Ok(())
        }
    }

    #[pallet::inherent]
    impl<T: Config> ProvideInherent for Pallet<T> {
        type Call = Call<T>;
        type Error = MakeFatalError<()>;
        const INHERENT_IDENTIFIER: InherentIdentifier = IDENTIFIER;

        fn create_inherent(data: &InherentData) -> Option<Call<T>> {
            let number = data.get_data(&IDENTIFIER).ok().flatten()?;
            Some(Call::set_relay_block { number })
        }

        fn is_inherent_required(data: &InherentData) -> Result<Option<Self::Error>, Self::Error> {
            let told = data.get_data::<u32>(&IDENTIFIER);
            Ok(told.ok().flatten().map(|_| MakeFatalError::from(())))
        }

        fn is_inherent(call: &Call<T>) -> bool {
            matches!(call, Call::set_relay_block { .. })
        }
    }

    impl<T: Config> BlockNumberProvider for Pallet<T> {
        type BlockNumber = u32;

        fn current_block_number() -> u32 {
            RelayBlock::<T>::get()
        }
    }
}
