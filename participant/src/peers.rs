//! Lists the peers that the chain announces, in the order in which to ask them, and says who is to be served before
//! whom.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use node_client::{
    chain::{AnnouncementInfo, Chain, MinerInfo, ValidatorInfo},
    network::{Keep, Network, PeerAddress, PeerId, Role},
};
use protocol::{fixed::Q32, AccountBytes, RunId, Window};

use crate::error::Result;

/// The announced peers of a run, validators first because they hold every payload.
#[derive(Debug, Default)]
pub struct AnnouncedPeers {
    own: Option<PeerId>,
    // Held for a look or an exchange, never across an await.
    known: Mutex<Arc<Vec<(AccountBytes, PeerAddress)>>>,
    /// What the network was told last, held as shortly.
    roles: Mutex<HashMap<PeerId, Role>>,
    /// What the chain says of accounts, as shortly.
    standings: Mutex<Arc<Standings>>,
    /// To whom the network keeps connections.
    kept: Mutex<Keep>,
}

impl AnnouncedPeers {
    /// No peers yet; `own` is never asked.
    pub fn new(own: PeerId) -> Self {
        Self { own: Some(own), ..Self::default() }
    }

    /// Reads the announcements at the head, introduces new peers to the network, has connections kept to all validators, and
    /// tells it the peers' roles when these have changed. Those are read once in a `window`, and when somebody is new.
    ///
    /// # Errors
    /// The chain or the network does not answer.
    pub async fn refresh(
        &self,
        chain: &dyn Chain,
        network: &dyn Network,
        run: RunId,
        window: Window,
    ) -> Result<()> {
        let mut announcements = chain.announcements(run, None).await?;
        let standings = self.standings(chain, run, window, &announcements).await?;
        let roles = roles(&announcements, &standings.roles);
        if *self.roles() != roles {
            network.set_roles(roles.clone()).await?;
            *self.roles() = roles;
        }
        let is_validator = |hot: &AccountBytes| standings.roles.get(hot) == Some(&Role::Validator);
        announcements.sort_by_key(|announcement| !is_validator(&announcement.hot));
        let known: Vec<_> = announcements
            .iter()
            .filter_map(|announcement| {
                let address =
                    PeerAddress::from_announcement(&announcement.peer_id, &announcement.addresses)?;
                Some((announcement.hot, address))
            })
            .filter(|(_, address)| Some(address.peer) != self.own)
            .collect();
        let before = self.known();
        for (account, address) in &known {
            if !before.iter().any(|(a, b)| a == account && b == address) {
                network.add_peer(address.clone()).await?;
            }
        }
        let keep = keep(known.iter().map(|(hot, address)| (is_validator(hot), address)));
        if *self.kept.lock().unwrap_or_else(PoisonError::into_inner) != keep {
            network.keep(keep.clone()).await?;
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = keep;
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
    }

    /// The roles of accounts, read again if they may have changed.
    async fn standings(
        &self,
        chain: &dyn Chain,
        run: RunId,
        window: Window,
        announcements: &[AnnouncementInfo],
    ) -> Result<Arc<Standings>> {
        let announced = announcements.iter().map(|announcement| announcement.hot).collect();
        let read = self.standings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if read.is_fresh(window, &announced) {
            return Ok(read);
        }
        let validators = chain.validators(run, None).await?;
        let roles = account_roles(&validators, &chain.miners(run, None).await?);
        let read = Arc::new(Standings { window: Some(window), announced, roles });
        *self.standings.lock().unwrap_or_else(PoisonError::into_inner) = read.clone();
        Ok(read)
    }

    /// All peers, `first`'s own peer before the others.
    pub fn ordered(&self, first: Option<&AccountBytes>) -> Vec<PeerAddress> {
        let known = self.known();
        let (ahead, behind): (Vec<_>, Vec<_>) =
            known.iter().partition(|(account, _)| Some(account) == first);
        ahead.into_iter().chain(behind).map(|(_, address)| address.clone()).collect()
    }

    fn roles(&self) -> MutexGuard<'_, HashMap<PeerId, Role>> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Arc<Vec<(AccountBytes, PeerAddress)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the accounts of a run are.
#[derive(Debug, Default)]
struct Standings {
    /// The window in which they were read; a settlement changes them.
    window: Option<Window>,
    /// Who was announced then.
    announced: BTreeSet<AccountBytes>,
    roles: HashMap<AccountBytes, Role>,
}

impl Standings {
    /// Whether nothing can have changed since they were read that concerns those who are `announced`.
    fn is_fresh(&self, window: Window, announced: &BTreeSet<AccountBytes>) -> bool {
        self.window == Some(window) && announced.is_subset(&self.announced)
    }
}

/// A miner whose standing is above zero is a replica, one without is a joiner.
fn account_roles(
    validators: &[ValidatorInfo],
    miners: &[MinerInfo],
) -> HashMap<AccountBytes, Role> {
    let miners = miners.iter().map(|miner| {
        let role = if miner.value > Q32::ZERO { Role::Replica } else { Role::Joiner };
        (miner.hot, role)
    });
    let validators = validators.iter().map(|validator| (validator.hot, Role::Validator));
    miners.chain(validators).collect()
}

/// What the announced peers are. A peer that several announce has the best of their roles; the chain takes an
/// announcement with the signature of the peer's key alone.
fn roles(
    announcements: &[AnnouncementInfo],
    by_account: &HashMap<AccountBytes, Role>,
) -> HashMap<PeerId, Role> {
    let mut roles = HashMap::new();
    for announcement in announcements {
        let peer = PeerId::from_bytes(&announcement.peer_id).ok();
        if let Some((peer, role)) = peer.zip(by_account.get(&announcement.hot)) {
            let best = roles.entry(peer).or_insert(*role);
            *best = (*best).max(*role);
        }
    }
    roles
}

/// Validators are dialled, and who dials us is held: a miner behind a router is reached over the connections that it
/// makes.
fn keep<'a>(peers: impl IntoIterator<Item = (bool, &'a PeerAddress)>) -> Keep {
    let (mut dialled, mut held) = (Vec::new(), Vec::new());
    for (is_validator, address) in peers {
        if is_validator && !address.addresses.is_empty() {
            dialled.push(address.clone());
        } else {
            held.push(address.peer);
        }
    }
    dialled.sort_by_key(|address| address.peer);
    held.sort_unstable();
    Keep { dialled, held }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miner(hot: AccountBytes, value: Q32) -> MinerInfo {
        MinerInfo {
            uid: 0,
            hot,
            cold: hot,
            bond: 0,
            registered_window: 0,
            committed_window: None,
            last_window: None,
            standing: Default::default(),
            value,
            share: Q32::ZERO,
        }
    }

    #[test]
    fn a_peer_is_what_the_chain_says_of_its_account() {
        let peers = [(); 5].map(|()| PeerId::random());
        let announced = |hot: u8, peer: &PeerId| AnnouncementInfo {
            hot: [hot; 32],
            peer_id: peer.to_bytes(),
            addresses: Vec::new(),
        };
        let mut announcements: Vec<_> =
            (0..4).zip(&peers).map(|(hot, peer)| announced(hot, peer)).collect();
        // Whom a newcomer announces, too.
        announcements.push(announced(1, &peers[0]));
        announcements.push(AnnouncementInfo { peer_id: vec![1], ..announced(2, &peers[4]) });
        let validator = ValidatorInfo {
            index: 0,
            hot: [0; 32],
            cold: [0; 32],
            stake: 1,
            registered_window: 0,
            attested_window: None,
        };
        let miners = [miner([1; 32], Q32::ZERO), miner([2; 32], Q32::ONE)];
        let roles = roles(&announcements, &account_roles(&[validator], &miners));
        let expected = [Role::Validator, Role::Joiner, Role::Replica];
        assert_eq!(roles, peers.into_iter().zip(expected).collect());
    }

    #[test]
    fn roles_are_read_once_a_window_and_when_somebody_is_new() {
        let announced = |hots: &[u8]| hots.iter().map(|hot| [*hot; 32]).collect();
        let read =
            Standings { window: Some(4), announced: announced(&[1, 2]), ..Standings::default() };
        assert!(read.is_fresh(4, &announced(&[1, 2])) && read.is_fresh(4, &announced(&[2])));
        assert!(!read.is_fresh(4, &announced(&[1, 2, 3])));
        assert!(!read.is_fresh(5, &announced(&[1, 2])));
        assert!(!Standings::default().is_fresh(0, &announced(&[])));
    }

    #[test]
    fn validators_are_dialled_and_all_others_held() {
        let mut ids = [(); 4].map(|()| PeerId::random());
        ids.sort_unstable();
        let [a, b, c, d] = ids;
        let at = |peer, addresses: &[&str]| PeerAddress {
            peer,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        let somewhere = ["/ip4/192.0.2.1/tcp/4001"];
        let peers = [
            (true, at(d, &somewhere)),
            (true, at(b, &somewhere)),
            // It says of no address that it is reached there.
            (true, at(c, &[])),
            (false, at(a, &somewhere)),
        ];
        let keep = keep(peers.iter().map(|(is_validator, address)| (*is_validator, address)));
        assert_eq!(keep.dialled, [at(b, &somewhere), at(d, &somewhere)]);
        assert_eq!(keep.held, [a, c]);
    }
}
