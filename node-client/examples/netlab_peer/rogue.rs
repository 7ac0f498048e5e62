//! Peers that misbehave: providers that lie, say nothing or trickle, and askers that do not read.

use std::{error::Error, io, net::IpAddr, str::FromStr, time::Duration};

use bytes::Bytes;
use futures::{future, AsyncRead, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{
    request_response::{self, Codec, Event, Message, ProtocolSupport},
    swarm::{dial_opts::DialOpts, SwarmEvent},
    StreamProtocol, Swarm, SwarmBuilder,
};
use node_client::network::{
    codec::{protocol_name, RangeCodec, RangeRequest, RangeResponse, RANGE_LEN_MAX},
    PeerAddress,
};
use serde_json::json;

use crate::content::{content, listen, NAME};

/// How a trickler serves: so many bytes, then the pause; 1 MiB in 17 minutes.
const TRICKLE_LEN: usize = 1_024;
const TRICKLE_PAUSE: Duration = Duration::from_secs(1);

/// How a rogue misbehaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answers with wrong bytes.
    Liar,
    /// Takes requests and never answers.
    Mute,
    /// Serves the right bytes, too slowly to be of use.
    Trickler,
    /// Asks, and does not read the answer.
    Stranger,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "liar" => Ok(Self::Liar),
            "mute" => Ok(Self::Mute),
            "trickler" => Ok(Self::Trickler),
            _ => Err(format!("there is no rogue of the kind `{text}`")),
        }
    }
}

/// The range protocol as a rogue speaks it.
#[derive(Clone)]
struct RogueCodec(Kind);

impl Codec for RogueCodec {
    type Protocol = StreamProtocol;
    type Request = RangeRequest;
    type Response = RangeResponse;

    async fn read_request<T>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<RangeRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        RangeCodec.read_request(protocol, io).await
    }

    async fn read_response<T>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<RangeResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        if self.0 == Kind::Stranger {
            return future::pending().await;
        }
        RangeCodec.read_response(protocol, io).await
    }

    async fn write_request<T>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        request: RangeRequest,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        RangeCodec.write_request(protocol, io, request).await
    }

    async fn write_response<T>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        response: RangeResponse,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        if self.0 != Kind::Trickler {
            return RangeCodec.write_response(protocol, io, response).await;
        }
        let mut message = Vec::new();
        RangeCodec.write_response(protocol, &mut message, response).await?;
        for part in message.chunks(TRICKLE_LEN) {
            io.write_all(part).await?;
            io.flush().await?;
            tokio::time::sleep(TRICKLE_PAUSE).await;
        }
        Ok(())
    }
}

type RogueSwarm = Swarm<request_response::Behaviour<RogueCodec>>;

fn swarm(kind: Kind) -> Result<RogueSwarm, Box<dyn Error>> {
    let protocol = protocol_name(NAME).ok_or("the lab has no name")?;
    // A rogue waits as long as it likes.
    let config = request_response::Config::default()
        .with_request_timeout(Duration::from_secs(3_600))
        .with_max_concurrent_streams(1_024);
    let builder = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default(),
            libp2p::noise::Config::new,
            libp2p::yamux::Config::default,
        )?
        .with_behaviour(|_| {
            let protocols = [(protocol, ProtocolSupport::Full)];
            request_response::Behaviour::with_codec(RogueCodec(kind), protocols, config)
        })?;
    let idle = Duration::from_secs(3_600);
    Ok(builder.with_swarm_config(|config| config.with_idle_connection_timeout(idle)).build())
}

/// Serves the content of `len` bytes badly, until the process is ended.
pub(crate) async fn serve(kind: Kind, ip: IpAddr, len: usize) -> Result<(), Box<dyn Error>> {
    let mut swarm = swarm(kind)?;
    swarm.listen_on(listen(ip, false))?;
    let (_, bytes) = content(len);
    // A request whose channel is dropped would be refused.
    let mut unanswered = Vec::new();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let address = format!("{address}/p2p/{}", swarm.local_peer_id());
                println!("{}", json!({ "address": address }));
            }
            SwarmEvent::Behaviour(Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            }) => match kind {
                Kind::Mute | Kind::Stranger => unanswered.push(channel),
                Kind::Liar | Kind::Trickler => {
                    let response = answer(kind, &bytes, request);
                    // Who asked may be gone.
                    let _ = swarm.behaviour_mut().send_response(channel, response);
                }
            },
            _ => {}
        }
    }
}

fn answer(kind: Kind, bytes: &Bytes, request: RangeRequest) -> RangeResponse {
    let start = bytes.len().min(request.offset as usize);
    let end = bytes.len().min(start + request.len as usize);
    let part = bytes.slice(start..end);
    let part = if kind == Kind::Liar { vec![0; part.len()].into() } else { part };
    RangeResponse::Found { total_len: bytes.len() as u64, bytes: part }
}

/// Lets `count` strangers ask for the content of `len` bytes on `streams` streams each, and read nothing.
pub(crate) async fn ask(
    target: PeerAddress,
    count: usize,
    streams: usize,
    len: usize,
) -> Result<(), Box<dyn Error>> {
    let (id, _) = content(len);
    for _ in 0..count {
        let mut swarm = swarm(Kind::Stranger)?;
        let options = DialOpts::peer_id(target.peer).addresses(target.addresses.clone());
        swarm.dial(options.build())?;
        let peer = target.peer;
        tokio::spawn(async move {
            let request = RangeRequest { id, piece: None, offset: 0, len: RANGE_LEN_MAX };
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => {
                        for _ in 0..streams {
                            swarm.behaviour_mut().send_request(&peer, request);
                        }
                    }
                    // A slot that was taken away is asked for again.
                    SwarmEvent::Behaviour(Event::OutboundFailure { .. }) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        swarm.behaviour_mut().send_request(&peer, request);
                    }
                    _ => {}
                }
            }
        });
    }
    println!("{}", json!({ "strangers": count }));
    future::pending().await
}
