//! TCP and QUIC, each secured, with many streams on a connection, and dialled by the rules ([`Rules`]).
//!
//! Names are resolved in between: who says that a peer is there is asked of the address as it was given, and whether it
//! may be dialled of what its name stands for.

use std::{
    collections::{hash_map::Entry, HashMap},
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{future::BoxFuture, FutureExt};
use libp2p::{
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, OrTransport, TransportError, TransportEvent},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    multiaddr::Protocol,
    noise, quic, tcp, yamux, Multiaddr, PeerId, Transport,
};

use super::dials::{Rules, Said};

/// A transport of secured connections with many streams.
type Secured = Boxed<(PeerId, StreamMuxerBox)>;

/// Streams of a connection over TCP or a relay, both sides' together: more than all protocols open at a time. Of each that is not
/// read 256 KiB may have come.
const STREAMS_MAX: usize = 192;

/// What makes many streams of one.
pub(super) fn muxer() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_MAX);
    config
}

/// What swarms are made of.
///
/// # Errors
/// The key cannot sign.
pub(super) fn transport(
    key: &Keypair,
    rules: Arc<Rules>,
) -> Result<Ways, Box<dyn Error + Send + Sync>> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(muxer())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let quic = quic::tokio::Transport::new(quic::Config::new(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let both = OrTransport::new(quic, tcp).map(|either, _| either.into_inner()).boxed();
    Ok(Ways { inner: Arc::new(Mutex::new(both)), rules, resolving: HashMap::new() })
}

/// Dials each address on the way of who says that a peer is there.
pub(super) struct Ways {
    inner: Arc<Mutex<Secured>>,
    rules: Arc<Rules>,
    /// The ways of names, from when one is dialled: each has a cache of its own.
    resolving: HashMap<Said, Secured>,
}

impl Ways {
    fn way(&self, said: Said) -> Way {
        Way { inner: self.inner.clone(), rules: self.rules.clone(), said }
    }

    /// The same for names. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system does not say how it resolves names.
    fn resolving(&mut self, said: Said) -> io::Result<&mut Secured> {
        let way = self.way(said);
        Ok(match self.resolving.entry(said) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(dns::tokio::Transport::system(way)?.boxed()),
        })
    }
}

impl Transport for Ways {
    type Output = <Secured as Transport>::Output;
    type Error = <Secured as Transport>::Error;
    type ListenerUpgrade = <Secured as Transport>::ListenerUpgrade;
    type Dial = <Secured as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        held(&self.inner).listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        held(&self.inner).remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        let Some(said) = self.rules.said(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if is_name(&address) {
            return self.resolving(said).map_err(TransportError::Other)?.dial(address, options);
        }
        let mut way = self.way(said);
        // Of many addresses a few are dialled at a time: it is asked whether this one may be when its turn comes.
        Ok(async move { way.dial(address, options).map_err(io::Error::other)?.await }.boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let event = std::task::ready!(Pin::new(&mut *held(&self.inner)).poll(context));
        self.rules.note(&event);
        Poll::Ready(event)
    }
}

/// Dials what names were resolved to. It listens nowhere: [`Ways`] does.
struct Way {
    inner: Arc<Mutex<Secured>>,
    rules: Arc<Rules>,
    said: Said,
}

impl Transport for Way {
    type Output = <Secured as Transport>::Output;
    type Error = <Secured as Transport>::Error;
    type ListenerUpgrade = <Secured as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn listen_on(
        &mut self,
        _: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        let Some(pass) = self.rules.pass(&address, self.said) else {
            tracing::debug!(%address, said = ?self.said, "not dialled: private, or too often");
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let dial = held(&self.inner).dial(address.clone(), options)?;
        let rules = self.rules.clone();
        Ok(async move {
            let dialled = dial.await;
            drop(pass);
            if let Ok((peer, _)) = &dialled {
                rules.on_reached(*peer, &address);
            }
            dialled
        }
        .boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}

fn is_name(address: &Multiaddr) -> bool {
    use Protocol::{Dns, Dns4, Dns6, Dnsaddr};
    matches!(address.iter().next(), Some(Dns(_) | Dns4(_) | Dns6(_) | Dnsaddr(_)))
}

/// The transport, for one call.
fn held(inner: &Mutex<Secured>) -> MutexGuard<'_, Secured> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}
