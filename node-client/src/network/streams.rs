//! Asks and answers over one connection: one question after another on streams that are kept.
//!
//! To open a stream, to name its protocol and to close it again takes more messages than a question and its answer do,
//! so a stream that has brought an answer is kept for the next question. Either side may close it between two. A
//! question to which nothing at all comes on a kept stream is asked once more, on one of its own: a peer that answers
//! one question a stream, or refuses without a word, costs no more than that. Kept streams hold no connection open, and
//! none is kept for long: the window of a stream grows with what is read of it, and a peer may fill it. A question that
//! nobody waits for any more is withdrawn, and its stream goes with it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    future::BoxFuture, stream::FuturesUnordered, AsyncRead, AsyncReadExt, AsyncWrite,
    AsyncWriteExt, FutureExt, StreamExt,
};
use libp2p::{
    core::upgrade::ReadyUpgrade,
    swarm::{
        handler::ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, Stream,
        StreamUpgradeError, SubstreamProtocol,
    },
    StreamProtocol,
};
use tokio::{
    sync::oneshot,
    time::{timeout, timeout_at, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    codec::{self, RangeRequest, RangeResponse, RANGE_LEN_MAX},
    pace::Pace,
};

/// Streams of one connection on which a peer is asked: as many as one serves a peer at a time and lets it wait with.
const ASKED_MAX: usize = 16;

/// Streams of one connection on which a peer may ask: more, as one that ends may be seen later than the next begins.
const ASKING_MAX: usize = 32;

/// Bytes after which a stream is asked on no more, so that no window grows beyond a few ranges, and the most of an answer
/// beside what is in it.
const ASKED_BYTES: usize = RANGE_LEN_MAX as usize;
const HEAD_LEN: usize = 32;

/// How long it may take to say that nobody waits for an answer.
const WITHDRAW_TIME: Duration = Duration::from_secs(1);

/// Questions that are answered on one stream: of fewer bytes than would have its window grow.
const ANSWERED_MAX: usize = 512;

/// A question, of this peer's or of another's: no other of this network has the same.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) struct QuestionId(u64);

/// The ids of questions, which all connections draw from.
#[derive(Debug, Default)]
pub(super) struct QuestionIds(AtomicU64);

impl QuestionIds {
    pub(super) fn next(&self) -> QuestionId {
        QuestionId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("the connection has closed")]
    Closed,
    #[error("no answer in time")]
    TimedOut,
    #[error("the peer does not speak the protocol")]
    Unsupported,
    #[error("the peer has closed the stream without a word")]
    Unheard,
    /// Not an error of anybody's.
    #[error("nobody waits for the answer")]
    Withdrawn,
    #[error(transparent)]
    Io(io::Error),
}

/// Why an answer has not left.
#[derive(Debug, thiserror::Error)]
pub(super) enum TellError {
    #[error("the connection has closed")]
    Closed,
    /// Not an error of anybody's: this peer had nothing to say.
    #[error("there was no answer")]
    Omitted,
    /// Nor this: the peer had what it asked for of another, or wants it no more.
    #[error("the peer has withdrawn the question")]
    Withdrawn,
    #[error("it was not taken in time")]
    TimedOut,
    #[error(transparent)]
    Io(io::Error),
}

/// A question that is to be asked.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) id: QuestionId,
    pub(super) request: RangeRequest,
    /// When nobody waits for the answer any more.
    pub(super) due: Instant,
    /// Cancelled when nobody does before.
    pub(super) given_up: CancellationToken,
}

/// What has come of questions.
#[derive(Debug)]
pub(super) enum News {
    /// The peer asks. Who drops the sender closes the stream.
    Question { id: QuestionId, request: RangeRequest, answer: oneshot::Sender<RangeResponse> },
    /// The answer to it has left, or never will.
    Told { id: QuestionId, result: Result<(), TellError> },
    /// The peer has answered, or never will.
    Answer { id: QuestionId, result: Result<RangeResponse, AskError> },
}

/// What every connection has of the protocol.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) name: StreamProtocol,
    pub(super) pace: Arc<Pace>,
    pub(super) ids: Arc<QuestionIds>,
    /// How long it may take until an answer has left, from the question on.
    pub(super) time_max: Duration,
    /// How many streams were opened for questions.
    pub(super) opened: Arc<AtomicU64>,
}

/// Questions that wait for a stream, and whether each was asked in vain on a kept one. Those that nobody waits for any more
/// are taken out when the connection is next looked at.
#[derive(Default)]
struct Line(VecDeque<(Ask, bool)>);

impl Line {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, ask: Ask) {
        self.0.push_back((ask, false));
    }

    /// Lets a question that was asked in vain be asked once more.
    fn again(&mut self, ask: Ask) {
        self.0.push_front((ask, true));
    }

    /// Puts one back that was taken.
    fn push_first(&mut self, ask: Ask) {
        self.0.push_front((ask, false));
    }

    /// The next for a stream that was kept.
    fn for_kept(&mut self) -> Option<Ask> {
        let place = self.0.iter().position(|(_, is_repeated)| !is_repeated)?;
        self.0.remove(place).map(|(ask, _)| ask)
    }

    /// The next for a new stream: those first that want one.
    fn for_new(&mut self) -> Option<Ask> {
        let place = self.0.iter().position(|(_, is_repeated)| *is_repeated).unwrap_or_default();
        self.0.remove(place).map(|(ask, _)| ask)
    }

    /// Takes out one that nobody waits for any more, and says why.
    fn ended(&mut self, now: Instant) -> Option<(Ask, AskError)> {
        let end = |ask: &Ask| match ask.given_up.is_cancelled() {
            true => Some(AskError::Withdrawn),
            false => (ask.due <= now).then_some(AskError::TimedOut),
        };
        let place = self.0.iter().position(|(ask, _)| end(ask).is_some())?;
        let (ask, _) = self.0.remove(place)?;
        end(&ask).map(|end| (ask, end))
    }
}

/// A stream of ours, and the bytes that came on it.
struct Own {
    stream: Stream,
    bytes: usize,
}

/// A stream of the peer's, and the questions that came on it.
struct Theirs {
    stream: Stream,
    questions: usize,
}

/// The end of what was done with a stream.
enum Step {
    /// It was asked on, which it was before or was not.
    Asked { ask: Ask, is_kept: bool, end: Result<(Own, RangeResponse), AskError> },
    /// It was kept, and the peer has closed it, or said on it what it was not asked.
    Dropped,
    /// The peer has asked on it, or closed it.
    Read(io::Result<Option<(Theirs, RangeRequest)>>),
    /// It was answered on.
    Told { id: QuestionId, end: Result<Theirs, TellError> },
}

/// Asks and answers over one connection.
pub(super) struct Handler {
    terms: Terms,
    line: Line,
    /// Where the next question goes to a stream on which nothing is asked.
    kept: Vec<oneshot::Sender<Ask>>,
    /// Streams that are being opened.
    opening: usize,
    /// Questions that were asked.
    asking: usize,
    /// Streams of the peer's, and on how many of them it waits for an answer.
    incoming: usize,
    answering: usize,
    steps: FuturesUnordered<BoxFuture<'static, Step>>,
    news: VecDeque<News>,
}

impl Handler {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            line: Line::default(),
            kept: Vec::new(),
            opening: 0,
            asking: 0,
            incoming: 0,
            answering: 0,
            steps: FuturesUnordered::new(),
            news: VecDeque::new(),
        }
    }

    fn ask(&mut self, own: Own, ask: Ask) {
        self.asking += 1;
        self.steps.push(asked(own, ask, false).boxed());
    }

    /// Keeps a stream for the next question. What comes before is dropped with it.
    fn keep(&mut self, mut own: Own) {
        let (next, mut question) = oneshot::channel();
        self.kept.push(next);
        let kept = async move {
            let mut unasked = [0];
            let ask = tokio::select! {
                biased;
                ask = &mut question => ask.ok(),
                // There may be one all the same.
                _ = own.stream.read(&mut unasked) => question.try_recv().ok(),
            };
            match ask {
                Some(ask) => asked(own, ask, true).await,
                None => Step::Dropped,
            }
        };
        self.steps.push(kept.boxed());
    }

    /// Waits for the next question on a stream of the peer's.
    fn read(&mut self, mut theirs: Theirs) {
        let read = async move {
            let next = codec::next_request(&mut theirs.stream).await;
            Step::Read(next.map(|next| next.map(|request| (theirs, request))))
        };
        self.steps.push(read.boxed());
    }

    /// Sends the answer to a question when it comes.
    fn answer(
        &mut self,
        mut theirs: Theirs,
        id: QuestionId,
        response: oneshot::Receiver<RangeResponse>,
    ) {
        self.answering += 1;
        let (time_max, pace) = (self.terms.time_max, self.terms.pace.clone());
        let write = async move {
            let response = tokio::select! {
                biased;
                response = response => response,
                end = codec::withdrawn(&mut theirs.stream) => {
                    return Err(end.map_or_else(TellError::Io, |()| TellError::Withdrawn));
                }
            };
            let Ok(response) = response else {
                // Its end says so to the peer.
                theirs.stream.close().await.map_err(TellError::Io)?;
                return Err(TellError::Omitted);
            };
            theirs.questions += 1;
            pace.write(&mut theirs.stream, response).await.map_err(TellError::Io)?;
            if theirs.questions == ANSWERED_MAX {
                theirs.stream.close().await.map_err(TellError::Io)?;
            }
            Ok(theirs)
        };
        let told = async move {
            let end = timeout(time_max, write).await.unwrap_or(Err(TellError::TimedOut));
            Step::Told { id, end }
        };
        self.steps.push(told.boxed());
    }

    fn on_step(&mut self, step: Step) -> Option<News> {
        match step {
            Step::Asked { ask, is_kept, end } => {
                self.asking -= 1;
                let result = match end {
                    Ok((own, response)) => {
                        if own.bytes < ASKED_BYTES {
                            self.keep(own);
                        }
                        Ok(response)
                    }
                    // The peer has closed what was kept.
                    Err(AskError::Unheard) if is_kept => {
                        self.line.again(ask);
                        return None;
                    }
                    // The connection is going away, which its end will say.
                    Err(AskError::Io(error)) if error.kind() == io::ErrorKind::NotConnected => {
                        self.line.again(ask);
                        return None;
                    }
                    Err(error) => Err(error),
                };
                Some(News::Answer { id: ask.id, result })
            }
            Step::Dropped => {
                self.kept.retain(|kept| !kept.is_closed());
                None
            }
            Step::Read(Ok(Some((theirs, request)))) => {
                let (answer, response) = oneshot::channel();
                let id = self.terms.ids.next();
                self.answer(theirs, id, response);
                Some(News::Question { id, request, answer })
            }
            Step::Read(end) => {
                self.incoming -= 1;
                if let Err(error) = end {
                    tracing::debug!(%error, "a stream of questions ended");
                }
                None
            }
            Step::Told { id, end } => {
                self.answering -= 1;
                let (next, result) = match end {
                    Ok(theirs) => (Some(theirs), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                match next.filter(|theirs| theirs.questions < ANSWERED_MAX) {
                    Some(theirs) => self.read(theirs),
                    None => self.incoming -= 1,
                }
                Some(News::Told { id, result })
            }
        }
    }

    /// Asks what waits on the streams that are kept.
    fn go_on(&mut self) {
        while let Some((ask, end)) = self.line.ended(Instant::now()) {
            self.news.push_back(News::Answer { id: ask.id, result: Err(end) });
        }
        while let Some(kept) = self.kept.pop() {
            // Its end, which comes by itself, may not have been seen yet.
            if kept.is_closed() {
                continue;
            }
            let Some(ask) = self.line.for_kept() else {
                self.kept.push(kept);
                break;
            };
            match kept.send(ask) {
                Ok(()) => self.asking += 1,
                Err(unsent) => self.line.push_first(unsent),
            }
        }
    }

    fn on_incoming(&mut self, mut stream: Stream) {
        if self.incoming >= ASKING_MAX {
            tracing::debug!("a peer has too many streams of questions");
            return;
        }
        self.incoming += 1;
        stream.ignore_for_keep_alive();
        self.read(Theirs { stream, questions: 0 });
    }

    fn on_opened(&mut self, mut stream: Stream) {
        self.opening -= 1;
        self.terms.opened.fetch_add(1, Ordering::Relaxed);
        stream.ignore_for_keep_alive();
        let own = Own { stream, bytes: 0 };
        match self.line.for_new() {
            Some(ask) => self.ask(own, ask),
            None => self.keep(own),
        }
    }

    fn on_not_opened(&mut self, error: StreamUpgradeError<Infallible>) {
        self.opening -= 1;
        let error = match error {
            StreamUpgradeError::Timeout => AskError::TimedOut,
            StreamUpgradeError::NegotiationFailed => AskError::Unsupported,
            StreamUpgradeError::Io(error) => AskError::Io(error),
            StreamUpgradeError::Apply(never) => match never {},
        };
        // One that was kept may have taken the question that it was opened for, and others are opened for the rest.
        let failed = if self.opening < self.line.len() { self.line.for_new() } else { None };
        self.news.extend(failed.map(|ask| News::Answer { id: ask.id, result: Err(error) }));
    }
}

/// Asks on a stream until nobody waits for the answer any more.
async fn asked(mut own: Own, ask: Ask, is_kept: bool) -> Step {
    let answer = async {
        tokio::select! {
            biased;
            answer = exchange(&mut own.stream, &ask.request) => return answer,
            () = ask.given_up.cancelled() => {}
        }
        // So that it makes room in the peer's queue for what is waited for. If it cannot be said the stream ends anyway.
        let _ = timeout(WITHDRAW_TIME, codec::withdraw(&mut own.stream)).await;
        Err(AskError::Withdrawn)
    };
    let end = match timeout_at(ask.due, answer).await {
        Ok(end) => end.map(|response| {
            own.bytes += HEAD_LEN + response.content_len() + response.map_len();
            (own, response)
        }),
        Err(_) if ask.given_up.is_cancelled() => Err(AskError::Withdrawn),
        Err(_) => Err(AskError::TimedOut),
    };
    Step::Asked { ask, is_kept, end }
}

async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin + Send),
    request: &RangeRequest,
) -> Result<RangeResponse, AskError> {
    let asked = async {
        codec::write_request(stream, request).await?;
        stream.flush().await
    };
    asked.await.map_err(|error| match error.kind() {
        io::ErrorKind::NotConnected => AskError::Io(error),
        _ => AskError::Unheard,
    })?;
    codec::next_response(stream).await.map_err(AskError::Io)?.ok_or(AskError::Unheard)
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Ask;
    type ToBehaviour = News;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.terms.name.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.line.len() + self.asking + self.answering > 0
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        loop {
            self.go_on();
            if let Some(news) = self.news.pop_front() {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(news));
            }
            let Poll::Ready(Some(step)) = self.steps.poll_next_unpin(context) else { break };
            let news = self.on_step(step);
            self.news.extend(news);
        }
        if self.opening < self.line.len() && self.opening + self.asking < ASKED_MAX {
            self.opening += 1;
            let protocol = self.listen_protocol();
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, ask: Self::FromBehaviour) {
        self.line.push(ask);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(opened) => self.on_incoming(opened.protocol),
            ConnectionEvent::FullyNegotiatedOutbound(opened) => self.on_opened(opened.protocol),
            ConnectionEvent::DialUpgradeError(failed) => self.on_not_opened(failed.error),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use bytes::Bytes;

    use super::*;

    /// What a peer says, whatever it is asked; `None` if it takes no question.
    struct Said<'a>(Option<&'a [u8]>);

    impl AsyncRead for Said<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            into: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(self.0.as_mut().unwrap()).poll_read(context, into)
        }
    }

    impl AsyncWrite for Said<'_> {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let takes = self.0.map(|_| bytes.len());
            Poll::Ready(takes.ok_or_else(|| io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    const REQUEST: RangeRequest = RangeRequest { id: [7; 32], piece: None, offset: 0, len: 4 };

    #[tokio::test]
    async fn who_closes_a_stream_before_a_word_is_told_from_who_ends_within_an_answer() {
        let response = RangeResponse::Found { total_len: 4, bytes: Bytes::from_static(b"good") };
        let mut whole = Vec::new();
        codec::write_response(&mut whole, response.clone()).await.unwrap();
        assert_eq!(exchange(&mut Said(Some(&whole)), &REQUEST).await.unwrap(), response);
        for taken in [None, Some(&[][..])] {
            let end = exchange(&mut Said(taken), &REQUEST).await;
            assert!(matches!(end, Err(AskError::Unheard)), "{end:?}");
        }
        for len in 1..whole.len() {
            let end = exchange(&mut Said(Some(&whole[..len])), &REQUEST).await;
            assert!(matches!(end, Err(AskError::Io(_))), "{len}: {end:?}");
        }
    }

    #[tokio::test]
    async fn a_question_asked_in_vain_goes_to_a_new_stream_alone() {
        let (ids, now) = (QuestionIds::default(), Instant::now());
        let mut line = Line::default();
        let mut ask = |seconds| {
            let due = now + Duration::from_secs(seconds);
            let given_up = CancellationToken::new();
            line.push(Ask { id: ids.next(), request: REQUEST, due, given_up: given_up.clone() });
            given_up
        };
        let given_up = [4, 3, 2, 1].map(&mut ask);
        let first = line.for_kept().unwrap();
        line.again(first);
        let taken = |ask: Option<Ask>| ask.map(|ask| ask.id.0);
        assert_eq!(taken(line.for_kept()), Some(1));
        assert_eq!(taken(line.for_new()), Some(0));
        let mut ended = |seconds| {
            let end = line.ended(now + Duration::from_secs(seconds));
            end.map(|(ask, end)| (ask.id.0, matches!(end, AskError::Withdrawn)))
        };
        assert_eq!([ended(0), ended(1)], [None, Some((3, false))]);
        given_up[2].cancel();
        assert_eq!([ended(0), ended(0)], [Some((2, true)), None]);
        assert_eq!((line.len(), taken(line.for_new())), (0, None));
    }
}
