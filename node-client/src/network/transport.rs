//! TCP and QUIC, each secured, with many streams on a connection, and dialled by the rules ([`Dials`]).

use std::error::Error;

use libp2p::{
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport},
        upgrade::Version,
    },
    identity::Keypair,
    noise, quic, tcp, yamux, PeerId, Transport,
};

use super::dials::{Dials, Rules};

/// A transport of secured connections with many streams.
type Secured = Boxed<(PeerId, StreamMuxerBox)>;

/// What swarms are made of; names are not resolved yet.
///
/// # Errors
/// The key cannot sign.
pub(super) fn transport(
    key: &Keypair,
    rules: Rules,
) -> Result<Dials<Secured>, Box<dyn Error + Send + Sync>> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let quic = quic::tokio::Transport::new(quic::Config::new(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let both = OrTransport::new(quic, tcp).map(|either, _| either.into_inner()).boxed();
    Ok(Dials::new(both, rules))
}
