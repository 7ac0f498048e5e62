//! Leaves out the network's WebRTC transport, which is not compiled in: docs/decisions/0007-one-compile.md.

use sc_cli::NetworkParams;
use sc_network::{
    config::NetworkConfiguration,
    multiaddr::{Multiaddr, Protocol},
};

/// Refuses a command line that asks for WebRTC.
pub(crate) fn refuse(asked: &NetworkParams) -> sc_cli::Result<()> {
    let mut addresses = asked.listen_addr.iter().chain(&asked.public_addr);
    let wanted = match addresses.find(|address| needs_webrtc(address)) {
        Some(address) => address.to_string(),
        None if asked.force_enable_webrtc => "--force-enable-webrtc".to_owned(),
        None => return Ok(()),
    };
    Err(sc_cli::Error::Input(format!(
        "{wanted} needs WebRTC, which this node is built without; peers reach it by TCP and WebSocket"
    )))
}

/// Takes away the addresses for WebRTC that a node listens on when its command line names none.
pub(crate) fn leave_out(network: &mut NetworkConfiguration) {
    network.listen_addresses.retain(|address| !needs_webrtc(address));
}

fn needs_webrtc(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::WebRTCDirect))
}
