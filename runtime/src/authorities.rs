//! Chooses who makes and finalises blocks: a list that governance keeps and from which whoever equivocates is struck.
//!
//! `pallet-session` asks for the list at each session's end, so that a change is in force one full session after the one
//! in which it was made. Whoever votes twice in GRANDPA and is reported is struck at once and makes no block until it is
//! out. The list is never empty: a chain without authorities could not even be mended by its governance.

pub use pallet::*;

use alloc::vec::Vec;

use frame_support::{ensure, traits::Get, weights::Weight};
use pallet_session::{historical, ShouldEndSession};
use sp_runtime::{traits::Convert, DispatchError, Perbill};
use sp_staking::{
    offence::{OffenceDetails, OffenceSeverity, OnOffenceHandler},
    SessionIndex,
};

use crate::AccountId;

/// An authority as reports of equivocations name it: there is no more to it than its account.
pub type Identification = (AccountId, ());

/// Picoseconds that an authority's three insertions into the trie of a session take; generous.
const SESSION_TRIE_TIME: u64 = 100_000_000;

/// Lets `pallet-session` end no session by itself: [`Pallet`] ends them.
pub struct NeverEnds;

impl<BlockNumber> ShouldEndSession<BlockNumber> for NeverEnds {
    fn should_end_session(_: BlockNumber) -> bool {
        false
    }
}

#[frame_support::pallet]
pub mod pallet {
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;

    use super::*;

    /// What a runtime chooses.
    #[pallet::config]
    pub trait Config:
        frame_system::Config<AccountId = AccountId>
        + pallet_session::Config<ValidatorId = AccountId>
        + historical::Config<FullIdentification = ()>
    {
        /// When sessions end. The runtime's `pallet-session` has [`NeverEnds`] in its place.
        type Sessions: ShouldEndSession<BlockNumberFor<Self>>;
        /// Who changes the list.
        type AdminOrigin: EnsureOrigin<Self::RuntimeOrigin>;
        /// The longest list; the one of Aura and GRANDPA.
        #[pallet::constant]
        type AuthoritiesMax: Get<u32>;
        /// For how many past sessions an equivocation can be reported.
        #[pallet::constant]
        type ReportableSessions: Get<SessionIndex>;
    }

    /// The pallet.
    #[pallet::pallet]
    pub struct Pallet<T>(_);

    /// The accounts whose session keys make and finalise blocks from the session after next. Written by
    /// [`Pallet::add_authority`], [`Pallet::remove_authority`] and reports of equivocations.
    #[pallet::storage]
    pub type Authorities<T: Config> =
        StorageValue<_, BoundedVec<AccountId, T::AuthoritiesMax>, ValueQuery>;

    /// The first authorities; their session keys are part of `pallet-session`'s genesis.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// The accounts, at most [`Config::AuthoritiesMax`].
        pub authorities: BoundedVec<AccountId, T::AuthoritiesMax>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            Authorities::<T>::put(&self.authorities);
        }
    }

    /// What happened to the list.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// An account will be an authority.
        Added {
            /// The account.
            authority: AccountId,
        },
        /// Governance struck an account from the list.
        Removed {
            /// The account.
            authority: AccountId,
        },
        /// An account was struck from the list because it equivocated.
        Equivocated {
            /// The account.
            authority: AccountId,
            /// The session in which it did.
            session: SessionIndex,
        },
    }

    /// Why a change of the list is refused.
    #[pallet::error]
    pub enum Error<T> {
        /// The account is on the list already.
        AlreadyAuthority,
        /// The account is not on the list.
        NotAuthority,
        /// The account has no session keys; it sets them by `session.set_keys`.
        NoSessionKeys,
        /// The list is full; remove somebody first.
        TooManyAuthorities,
        /// The account is the last one on the list; add another first.
        LastAuthority,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        /// Ends the session where one ends, at the weight of what that takes. `pallet-session` itself would count it as a
        /// whole block, in which no window's work had room.
        fn on_initialize(block: BlockNumberFor<T>) -> Weight {
            if !T::Sessions::should_end_session(block) {
                return Weight::zero();
            }
            pallet_session::Pallet::<T>::rotate_session();
            session_weight::<T>()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Lets an account with session keys make and finalise blocks.
        ///
        /// ## Dispatch Origin
        ///
        /// [`Config::AdminOrigin`].
        #[pallet::call_index(0)]
        #[pallet::weight(T::DbWeight::get().reads_writes(2, 1))]
        pub fn add_authority(origin: OriginFor<T>, authority: AccountId) -> DispatchResult {
            T::AdminOrigin::ensure_origin(origin)?;
            Self::do_add(authority)
        }

        /// Strikes an account from the list.
        ///
        /// ## Dispatch Origin
        ///
        /// [`Config::AdminOrigin`].
        #[pallet::call_index(1)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn remove_authority(origin: OriginFor<T>, authority: AccountId) -> DispatchResult {
            T::AdminOrigin::ensure_origin(origin)?;
            Self::do_remove(&authority)?;
            Self::deposit_event(Event::Removed { authority });
            Ok(())
        }
    }
}

/// What the end of a session takes at most: a few items of `pallet-session`, Aura, GRANDPA and the historical roots, and for
/// each authority its keys, read for the queue and for the root.
fn session_weight<T: Config>() -> Weight {
    let authorities = u64::from(T::AuthoritiesMax::get());
    let trie = Weight::from_parts(SESSION_TRIE_TIME.saturating_mul(authorities), 0);
    let reads = authorities.saturating_mul(3).saturating_add(20);
    T::DbWeight::get().reads_writes(reads, 30).saturating_add(trie)
}

impl<T: Config> Pallet<T> {
    fn do_add(authority: AccountId) -> Result<(), DispatchError> {
        let keys = pallet_session::NextKeys::<T>::contains_key(&authority);
        ensure!(keys, Error::<T>::NoSessionKeys);
        Authorities::<T>::try_mutate(|list| {
            ensure!(!list.contains(&authority), Error::<T>::AlreadyAuthority);
            list.try_push(authority.clone()).map_err(|_| Error::<T>::TooManyAuthorities)
        })?;
        Self::deposit_event(Event::Added { authority });
        Ok(())
    }

    fn do_remove(authority: &AccountId) -> Result<(), Error<T>> {
        Authorities::<T>::try_mutate(|list| {
            ensure!(list.contains(authority), Error::<T>::NotAuthority);
            ensure!(list.len() > 1, Error::<T>::LastAuthority);
            list.retain(|listed| listed != authority);
            Ok(())
        })
    }
}

impl<T: Config> pallet_session::SessionManager<AccountId> for Pallet<T> {
    /// The list, where it is not that of the session that begins now: an equal one would still be a change to GRANDPA.
    fn new_session(_: SessionIndex) -> Option<Vec<AccountId>> {
        let list = Authorities::<T>::get().into_inner();
        (list != pallet_session::Validators::<T>::get() && !list.is_empty()).then_some(list)
    }

    fn start_session(_: SessionIndex) {}

    /// Forgets who the authorities of sessions were whose equivocations nobody can report any more.
    fn end_session(index: SessionIndex) {
        let oldest = index.saturating_sub(T::ReportableSessions::get());
        historical::Pallet::<T>::prune_up_to(oldest);
    }
}

impl<T: Config> historical::SessionManager<AccountId, ()> for Pallet<T> {
    fn new_session(index: SessionIndex) -> Option<Vec<Identification>> {
        let list = <Self as pallet_session::SessionManager<_>>::new_session(index)?;
        Some(list.into_iter().map(|authority| (authority, ())).collect())
    }

    fn start_session(index: SessionIndex) {
        <Self as pallet_session::SessionManager<_>>::start_session(index);
    }

    fn end_session(index: SessionIndex) {
        <Self as pallet_session::SessionManager<_>>::end_session(index);
    }
}

impl<T: Config> OnOffenceHandler<AccountId, Identification, Weight> for Pallet<T> {
    /// Strikes the offenders from the list and disables them until they are out, however small the fraction: there
    /// is no stake to slash.
    fn on_offence(
        offenders: &[OffenceDetails<AccountId, Identification>],
        _fractions: &[Perbill],
        session: SessionIndex,
    ) -> Weight {
        for OffenceDetails { offender: (authority, ()), .. } in offenders {
            if Self::do_remove(authority).is_ok() {
                let authority = authority.clone();
                Self::deposit_event(Event::Equivocated { authority, session });
            }
            let severity = OffenceSeverity::max_severity();
            pallet_session::Pallet::<T>::report_offence(authority.clone(), severity);
        }
        let each = T::DbWeight::get().reads_writes(3, 2);
        each.saturating_mul(offenders.len() as u64)
    }
}

/// Names an authority by its account, and nothing else of it.
pub struct AccountOnly;

impl Convert<AccountId, Option<()>> for AccountOnly {
    fn convert(_: AccountId) -> Option<()> {
        Some(())
    }
}
