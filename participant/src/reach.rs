//! Says in one line how others reach a participant, where that costs it something, as the chain announces it.

use std::fmt;

use node_client::{
    chain::{Chain, ChainError},
    network::PeerAddress,
};
use protocol::{AccountBytes, RunId};

/// Why others do not reach a participant as they should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreached {
    /// It is announced without an address.
    Nowhere,
    /// Validators tried in vain to dial it, and so many relay to it.
    OverRelays(usize),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => {
                f.write_str("nobody can dial it, and no validator relays to it: it is announced without an address")?;
            }
            Self::OverRelays(count) => write!(
                f,
                "nobody can dial it: others reach it over {count} relays, for a little at a time"
            )?,
        }
        f.write_str(
            ". Forward its ports at the router, or let that do it (UPnP), and name where they lead in [network] external",
        )
    }
}

/// How the participant with the hot key `hot` is announced, if others do not reach it as they should; `None` also where it is not
/// announced yet. Addresses over relays are announced once somebody tried in vain to dial all others.
///
/// # Errors
/// The chain does not answer.
pub async fn find(
    chain: &dyn Chain,
    run: RunId,
    hot: &AccountBytes,
) -> Result<Option<Unreached>, ChainError> {
    let announced = chain.announcements(run, None).await?;
    let own = announced.iter().find(|announcement| announcement.hot == *hot);
    let own = own.and_then(|own| PeerAddress::from_announcement(&own.peer_id, &own.addresses));
    Ok(own.and_then(|own| match own.relayed_count() {
        _ if own.addresses.is_empty() => Some(Unreached::Nowhere),
        0 => None,
        count => Some(Unreached::OverRelays(count)),
    }))
}
