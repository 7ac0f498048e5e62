//! Encodes and decodes the two messages of the range protocol.
//!
//! A stream carries requests and their responses, one after another; either side may close it between two. All integers
//! are little endian.
//!
//! ```text
//! request  = version 4 (u8) | content id (32 bytes) | piece (u32) | offset (u64) | len (u32)
//! response = 0 (found, u8)  | total_len (u64)       | len (u32)   | bytes
//!          | 1 (missing)
//!          | 2 (busy)
//!          | 3 (has other pieces) | len (u32) | map of those that it has
//!          | 4 (found, of a part)  | len (u32) | map of those that it has | total_len (u64) | len (u32) | bytes
//! ```
//!
//! A request of no bytes of the whole content asks who has a part of it for the map ([`PieceMap`]); who has all of it
//! answers with no bytes. Who serves of a part says beside it what else it has, if that is short. The piece 2^32 − 1
//! stands for the whole content: the offset is counted from its first byte. A message of which no byte comes for
//! [`STALL_TIMEOUT`] is given up.
//!
//! Who asks may withdraw its request before the response has come: it writes a byte of 0 and drops the stream. Who has
//! not begun to answer gives the request up then, and who has finds the stream gone. That a stream ends says nothing:
//! who asks one question on it closes its half behind it. Who knows nothing of the byte answers first, and finds a bad
//! request then, on a stream that is gone.
//!
//! Public so that tests and tools can speak it, well or badly.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{request_response, StreamProtocol};
use protocol::Hash;

use crate::store::PieceMap;

const VERSION: u8 = 4;
const FOUND: u8 = 0;
const MISSING: u8 = 1;
const BUSY: u8 = 2;
const OTHER_PIECES: u8 = 3;
const FOUND_OF_PART: u8 = 4;

const REQUEST_LEN: usize = 1 + 32 + 4 + 8 + 4;

/// Bytes of the two lengths before the bytes of an answer.
const FOUND_LEN: usize = 8 + 4;

/// What withdraws a request.
const WITHDRAWN: u8 = 0;

/// The piece number that stands for the whole content.
const WHOLE: u32 = u32::MAX;

/// How long a reader waits for one more byte.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of content in one response, and so the most that a request may ask for.
pub const RANGE_LEN_MAX: u32 = 1 << 20;

/// Bytes that go first, of the content with the lengths: as many as one frame of a stream holds, and what is copied costs
/// less than a frame of its own.
const FIRST_LEN: usize = 16 * 1024;

/// How much the buffer of a response grows at a time, so that a peer pays in bytes for the memory it takes.
const GROWTH_LEN: usize = 64 * 1024;

/// Asks for a part of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RangeRequest {
    /// The content id.
    pub id: Hash,
    /// The piece of it, if the content is one whose pieces are asked for by their numbers.
    pub piece: Option<u32>,
    /// First byte wanted, of the piece or of the content.
    pub offset: u64,
    /// Bytes wanted, at most [`RANGE_LEN_MAX`]. All of them come, but for the content's end. 0 asks which pieces the
    /// peer has.
    pub len: u32,
}

/// Answers a [`RangeRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeResponse {
    /// A part of the content.
    Found {
        /// Bytes of the whole content, or of the whole piece.
        total_len: u64,
        /// The wanted bytes.
        bytes: Bytes,
    },
    /// The same, of a peer that has these pieces and not all.
    Part {
        /// Bytes of the whole content, or of the whole piece.
        total_len: u64,
        /// The wanted bytes.
        bytes: Bytes,
        /// What it has.
        map: PieceMap,
    },
    /// The peer does not have the content.
    Missing,
    /// The peer serves as much as it is willing to: ask later.
    Busy,
    /// The peer has pieces of the content, and not this one: ask for another one, or later.
    OtherPieces(PieceMap),
}

impl RangeResponse {
    /// Bytes of content in it.
    pub(super) fn content_len(&self) -> usize {
        match self {
            Self::Found { bytes, .. } | Self::Part { bytes, .. } => bytes.len(),
            Self::Missing | Self::Busy | Self::OtherPieces(_) => 0,
        }
    }

    /// Bytes of a map of pieces in it.
    pub(super) fn map_len(&self) -> usize {
        match self {
            Self::Part { map, .. } | Self::OtherPieces(map) => map.as_bytes().len(),
            Self::Found { .. } | Self::Missing | Self::Busy => 0,
        }
    }
}

/// Reads and writes the messages; refuses a response of more than [`RANGE_LEN_MAX`] bytes before reading it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RangeCodec;

/// The name of the range protocol on the network `name`; `None` if that makes no protocol name.
pub fn protocol_name(name: &str) -> Option<StreamProtocol> {
    StreamProtocol::try_from_owned(format!("/gauntlet/{name}/range/4")).ok()
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl request_response::Codec for RangeCodec {
    type Protocol = StreamProtocol;
    type Request = RangeRequest;
    type Response = RangeResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<RangeRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        let next = tokio::time::timeout(STALL_TIMEOUT, next_request(io)).await;
        let next = next.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        next.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn read_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<RangeResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        next_response(io).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: RangeRequest,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_request(io, &request).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: RangeResponse,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_response(io, response).await
    }
}

/// The next request on a stream, however long it takes to come; `None` if the peer has closed it.
///
/// # Errors
/// What came is no request, the rest of one does not come, or the stream broke.
pub(super) async fn next_request<T>(io: &mut T) -> io::Result<Option<RangeRequest>>
where
    T: AsyncRead + Unpin + Send,
{
    let mut version = [0];
    if io.read(&mut version).await? == 0 {
        return Ok(None);
    }
    if version != [VERSION] {
        return Err(invalid("unknown version of a range request"));
    }
    Ok(Some(RangeRequest {
        id: read_array(io).await?,
        piece: Some(u32::from_le_bytes(read_array(io).await?)).filter(|piece| *piece != WHOLE),
        offset: u64::from_le_bytes(read_array(io).await?),
        len: u32::from_le_bytes(read_array(io).await?),
    }))
}

/// The response to the request that was written last; `None` if the peer has closed the stream instead.
///
/// # Errors
/// What came is no response, its next byte does not come, or the stream broke.
pub(super) async fn next_response<T>(io: &mut T) -> io::Result<Option<RangeResponse>>
where
    T: AsyncRead + Unpin + Send,
{
    let mut kind = [0];
    if read_some(io, &mut kind).await? == 0 {
        return Ok(None);
    }
    read_response_of(kind, io).await.map(Some)
}

async fn read_response_of<T>(kind: [u8; 1], io: &mut T) -> io::Result<RangeResponse>
where
    T: AsyncRead + Unpin + Send,
{
    let map = match kind {
        [FOUND] => None,
        [FOUND_OF_PART] => Some(read_map(io, PieceMap::BESIDE_MAX).await?),
        [MISSING] => return Ok(RangeResponse::Missing),
        [BUSY] => return Ok(RangeResponse::Busy),
        [OTHER_PIECES] => {
            let map = read_map(io, PieceMap::BYTES_MAX).await?;
            return Ok(RangeResponse::OtherPieces(map));
        }
        _ => return Err(invalid("unknown kind of range response")),
    };
    let total_len = u64::from_le_bytes(read_array(io).await?);
    let len = u32::from_le_bytes(read_array(io).await?);
    if len > RANGE_LEN_MAX {
        return Err(invalid("range response longer than any request"));
    }
    let bytes = read_vec(io, len as usize).await?.into();
    Ok(match map {
        Some(map) => RangeResponse::Part { total_len, bytes, map },
        None => RangeResponse::Found { total_len, bytes },
    })
}

/// Writes a request; nothing is flushed.
pub(super) async fn write_request<T>(io: &mut T, request: &RangeRequest) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    let mut message = Vec::with_capacity(REQUEST_LEN);
    message.push(VERSION);
    message.extend_from_slice(&request.id);
    message.extend_from_slice(&request.piece.unwrap_or(WHOLE).to_le_bytes());
    message.extend_from_slice(&request.offset.to_le_bytes());
    message.extend_from_slice(&request.len.to_le_bytes());
    io.write_all(&message).await
}

/// Withdraws the request that was written last.
pub(super) async fn withdraw<T>(io: &mut T) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    io.write_all(&[WITHDRAWN]).await?;
    io.flush().await
}

/// Waits until the request that was read last is withdrawn. That nothing more is asked on its stream withdraws nothing,
/// and of a connection that breaks its end is told.
///
/// # Errors
/// Something else came before the response.
pub(super) async fn withdrawn<T>(io: &mut T) -> io::Result<()>
where
    T: AsyncRead + Unpin + Send,
{
    let mut byte = [0];
    match io.read(&mut byte).await {
        Ok(1) if byte == [WITHDRAWN] => Ok(()),
        Ok(1) => Err(invalid("a range request before the response to another")),
        _ => std::future::pending().await,
    }
}

/// Writes a response; nothing is flushed.
pub(super) async fn write_response<T>(io: &mut T, response: RangeResponse) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    let (total_len, bytes, map) = match response {
        RangeResponse::Found { total_len, bytes } => (total_len, bytes, None),
        RangeResponse::Part { total_len, bytes, map } => (total_len, bytes, Some(map)),
        RangeResponse::Missing => return io.write_all(&[MISSING]).await,
        RangeResponse::Busy => return io.write_all(&[BUSY]).await,
        RangeResponse::OtherPieces(map) => {
            return io.write_all(&with_map(OTHER_PIECES, &map)?).await
        }
    };
    let len = u32::try_from(bytes.len()).map_err(|_| invalid("range response too long"))?;
    // Each write is a frame of its own, with a cipher's tag.
    let mut head = match map {
        Some(map) => with_map(FOUND_OF_PART, &map)?,
        None => vec![FOUND],
    };
    let (first, rest) =
        bytes.split_at(bytes.len().min(FIRST_LEN.saturating_sub(head.len() + FOUND_LEN)));
    head.reserve(FOUND_LEN + first.len());
    head.extend_from_slice(&total_len.to_le_bytes());
    head.extend_from_slice(&len.to_le_bytes());
    head.extend_from_slice(first);
    io.write_all(&head).await?;
    io.write_all(rest).await
}

async fn read_map<T>(io: &mut T, len_max: usize) -> io::Result<PieceMap>
where
    T: AsyncRead + Unpin + Send,
{
    let len = u32::from_le_bytes(read_array(io).await?) as usize;
    if len > len_max {
        return Err(invalid("map of pieces longer than any"));
    }
    let map = PieceMap::from_bytes(read_vec(io, len).await?.into());
    map.ok_or_else(|| invalid("map of pieces longer than any"))
}

/// What a response with a map begins with.
fn with_map(kind: u8, map: &PieceMap) -> io::Result<Vec<u8>> {
    let len = u32::try_from(map.as_bytes().len()).map_err(|_| invalid("map of pieces too long"))?;
    let mut message = Vec::with_capacity(1 + 4 + map.as_bytes().len());
    message.push(kind);
    message.extend_from_slice(&len.to_le_bytes());
    message.extend_from_slice(map.as_bytes());
    Ok(message)
}

async fn read_array<const N: usize, T>(io: &mut T) -> io::Result<[u8; N]>
where
    T: AsyncRead + Unpin + Send,
{
    let mut array = [0; N];
    read_all(io, &mut array).await?;
    Ok(array)
}

async fn read_vec<T>(io: &mut T, len: usize) -> io::Result<Vec<u8>>
where
    T: AsyncRead + Unpin + Send,
{
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let start = bytes.len();
        bytes.resize(len.min(start + GROWTH_LEN), 0);
        read_all(io, &mut bytes[start..]).await?;
    }
    Ok(bytes)
}

/// Reads what has come, or comes soon enough.
async fn read_some<T>(io: &mut T, into: &mut [u8]) -> io::Result<usize>
where
    T: AsyncRead + Unpin + Send,
{
    let read = tokio::time::timeout(STALL_TIMEOUT, io.read(into)).await;
    read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Fills `into`, as long as bytes keep coming.
async fn read_all<T>(io: &mut T, mut into: &mut [u8]) -> io::Result<()>
where
    T: AsyncRead + Unpin + Send,
{
    while !into.is_empty() {
        let count = read_some(io, into).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into = &mut into[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::{io::Cursor, FutureExt};
    use libp2p::request_response::Codec as _;

    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<RangeResponse> {
        let protocol = protocol_name("test").ok_or(io::ErrorKind::InvalidInput)?;
        RangeCodec.read_response(&protocol, &mut Cursor::new(bytes)).await
    }

    #[tokio::test]
    async fn a_request_is_withdrawn_by_a_byte_of_zero_and_nothing_else() {
        let mut said = Cursor::new(Vec::new());
        withdraw(&mut said).await.unwrap();
        let end = |bytes| withdrawn(&mut Cursor::new(bytes)).now_or_never();
        assert!(end(said.into_inner()).unwrap().is_ok());
        assert!(end(vec![VERSION]).unwrap().is_err());
        assert!(end(Vec::new()).is_none());
    }

    #[tokio::test]
    async fn a_map_of_pieces_comes_as_it_was_sent_and_a_longer_one_is_refused_unread() {
        let protocol = protocol_name("test").unwrap();
        for map in [PieceMap::default(), PieceMap::of([true, false, true])] {
            let bytes = Bytes::from_static(b"piece");
            let part = RangeResponse::Part { total_len: 9, bytes, map: map.clone() };
            let mut sent = Cursor::new(Vec::new());
            RangeCodec.write_response(&protocol, &mut sent, part.clone()).await.unwrap();
            assert_eq!(read(sent.get_ref()).await.unwrap(), part);
            let response = RangeResponse::OtherPieces(map);
            let mut sent = Cursor::new(Vec::new());
            RangeCodec.write_response(&protocol, &mut sent, response.clone()).await.unwrap();
            assert_eq!(read(sent.get_ref()).await.unwrap(), response);
        }
        let longest = [(OTHER_PIECES, PieceMap::BYTES_MAX), (FOUND_OF_PART, PieceMap::BESIDE_MAX)];
        for (kind, longest) in longest {
            let mut long = vec![kind];
            long.extend_from_slice(&(longest as u32 + 1).to_le_bytes());
            assert_eq!(read(&long).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
