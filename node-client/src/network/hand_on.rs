//! Lets a behaviour hand on to one within it what it does not change itself.

/// The part of a behaviour that its connections' handlers are in, as that of its field `$inner`; a handler is wrapped
/// in `$wrap`, if there is one.
macro_rules! hand_on {
    ($inner:ident $(, $wrap:path)?) => {
        fn handle_established_inbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: libp2p::PeerId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            let inner = &mut self.$inner;
            inner
                .handle_established_inbound_connection(connection, peer, local, remote)
                $(.map($wrap))?
        }

        fn handle_established_outbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: libp2p::PeerId,
            address: &libp2p::Multiaddr,
            role: libp2p::core::Endpoint,
            port: libp2p::core::transport::PortUse,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            let inner = &mut self.$inner;
            inner
                .handle_established_outbound_connection(connection, peer, address, role, port)
                $(.map($wrap))?
        }

        fn on_connection_handler_event(
            &mut self,
            peer: libp2p::PeerId,
            connection: libp2p::swarm::ConnectionId,
            event: libp2p::swarm::THandlerOutEvent<Self>,
        ) {
            self.$inner.on_connection_handler_event(peer, connection, event);
        }
    };
}

pub(super) use hand_on;
