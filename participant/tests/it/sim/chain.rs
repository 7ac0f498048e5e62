//! The chain as one participant's connection has it: the fake one, with delays, outages, lost extrinsics and answers.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{stream, StreamExt};
use node_client::{
    chain::{
        AnnouncementInfo, AttestationCommitmentInfo, AttestationInfo, BestNumbers, BlockRef, Call,
        Chain, ChainError, Claim, CommitmentInfo, DataChallengeInfo, DepartureInfo,
        EvaluationDisputeInfo, FinalizedBlocks, GauntletEvent, Included, Ledger, MinerInfo,
        PermitInfo, ProvenFaultInfo, RevealInfo, RunCost, RunInfo, ScoreCommitmentInfo,
        ScoreRevealInfo, SlashInfo, StakePoolInfo, SubmitError, ValidatorInfo, WindowInfo,
    },
    keys::{self, Keypair},
};
use protocol::{layout::Layout, AccountBytes, BlockNumber, Hash, Planck, RunId, Window};

use super::world::World;

const DOWN: &str = "the connection is down";

pub(super) struct SimChain {
    pub(super) world: Arc<World>,
    pub(super) who: usize,
    /// Whether this participant keeps its promises.
    pub(super) is_honest: bool,
}

impl SimChain {
    async fn ask(&self, what: &str) -> Result<&dyn Chain, ChainError> {
        self.world.pass(self.who, what).await;
        if self.world.link(self.who).borrow().chain_down {
            return Err(ChainError::Transport(DOWN.to_owned()));
        }
        Ok(self.world.node(self.who))
    }
}

#[async_trait]
impl Chain for SimChain {
    async fn genesis_hash(&self) -> Result<Hash, ChainError> {
        self.ask("genesis").await?.genesis_hash().await
    }

    async fn finalized_head(&self) -> Result<BlockRef, ChainError> {
        self.ask("head").await?.finalized_head().await
    }

    async fn best_number(&self) -> Result<BlockNumber, ChainError> {
        self.ask("best").await?.best_number().await
    }

    async fn subscribe_finalized(&self) -> Result<FinalizedBlocks, ChainError> {
        let inner = self.ask("subscribe").await?.subscribe_finalized().await?;
        let (world, who) = (self.world.clone(), self.who);
        let delayed = stream::unfold((inner, world), move |(mut inner, world)| async move {
            let block = inner.next().await?;
            loop {
                world.pass(who, "block").await;
                let mut link = world.link(who);
                if !link.borrow().chain_down {
                    break;
                }
                link.wait_for(|link| !link.chain_down).await.ok()?;
            }
            Some((block, (inner, world)))
        });
        Ok(delayed.boxed())
    }

    async fn subscribe_best(&self) -> Result<BestNumbers, ChainError> {
        let inner = self.ask("subscribe best").await?.subscribe_best().await?;
        let (world, who) = (self.world.clone(), self.who);
        let delayed = stream::unfold((inner, world), move |(mut inner, world)| async move {
            let number = inner.next().await?;
            world.pass(who, "best block").await;
            let mut link = world.link(who);
            link.wait_for(|link| !link.chain_down).await.ok()?;
            Some((number, (inner, world)))
        });
        Ok(delayed.boxed())
    }

    async fn block_hash(&self, number: BlockNumber) -> Result<Option<Hash>, ChainError> {
        self.ask("hash").await?.block_hash(number).await
    }

    async fn run(&self, run: RunId, at: Option<Hash>) -> Result<Option<RunInfo>, ChainError> {
        self.ask("run").await?.run(run, at).await
    }

    async fn is_paused(&self, run: RunId, at: Option<Hash>) -> Result<bool, ChainError> {
        self.ask("is_paused").await?.is_paused(run, at).await
    }

    async fn run_cost(&self, layout: &Layout, at: Option<Hash>) -> Result<RunCost, ChainError> {
        self.ask("run cost").await?.run_cost(layout, at).await
    }

    async fn entry_price(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Option<Planck>, ChainError> {
        self.ask("price").await?.entry_price(run, at).await
    }

    async fn miners(&self, run: RunId, at: Option<Hash>) -> Result<Vec<MinerInfo>, ChainError> {
        self.ask("miners").await?.miners(run, at).await
    }

    async fn validators(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<ValidatorInfo>, ChainError> {
        self.ask("validators").await?.validators(run, at).await
    }

    async fn announcements(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<AnnouncementInfo>, ChainError> {
        self.ask("announcements").await?.announcements(run, at).await
    }

    async fn window(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Option<WindowInfo>, ChainError> {
        self.ask("window").await?.window(run, window, at).await
    }

    async fn commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<CommitmentInfo>, ChainError> {
        let chain = self.ask("commitments").await?;
        chain.commitments(run, window, at).await
    }

    async fn reveals(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<RevealInfo>, ChainError> {
        self.ask("reveals").await?.reveals(run, window, at).await
    }

    async fn permits(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<PermitInfo>, ChainError> {
        self.ask("permits").await?.permits(run, window, at).await
    }

    async fn attestation_commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<AttestationCommitmentInfo>, ChainError> {
        let chain = self.ask("attestation_commitments").await?;
        chain.attestation_commitments(run, window, at).await
    }

    async fn attestations(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<AttestationInfo>, ChainError> {
        let chain = self.ask("attestations").await?;
        chain.attestations(run, window, at).await
    }

    async fn score_commitments(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ScoreCommitmentInfo>, ChainError> {
        let chain = self.ask("score commitments").await?;
        chain.score_commitments(run, window, at).await
    }

    async fn score_reveals(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ScoreRevealInfo>, ChainError> {
        let chain = self.ask("score reveals").await?;
        chain.score_reveals(run, window, at).await
    }

    async fn departures(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<DepartureInfo>, ChainError> {
        let chain = self.ask("departures").await?;
        chain.departures(run, at).await
    }

    async fn proven_faults(
        &self,
        run: RunId,
        window: Window,
        at: Option<Hash>,
    ) -> Result<Vec<ProvenFaultInfo>, ChainError> {
        let chain = self.ask("faults").await?;
        chain.proven_faults(run, window, at).await
    }

    async fn data_challenges(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<DataChallengeInfo>, ChainError> {
        let chain = self.ask("challenges").await?;
        chain.data_challenges(run, at).await
    }

    async fn evaluation_disputes(
        &self,
        run: RunId,
        at: Option<Hash>,
    ) -> Result<Vec<EvaluationDisputeInfo>, ChainError> {
        let chain = self.ask("disputes").await?;
        chain.evaluation_disputes(run, at).await
    }

    async fn stake_pool(
        &self,
        run: RunId,
        pool: u32,
        at: Option<Hash>,
    ) -> Result<Option<StakePoolInfo>, ChainError> {
        let chain = self.ask("pool").await?;
        chain.stake_pool(run, pool, at).await
    }

    async fn slashes(&self, run: RunId, at: Option<Hash>) -> Result<Vec<SlashInfo>, ChainError> {
        let chain = self.ask("slashes").await?;
        chain.slashes(run, at).await
    }

    async fn ledger(&self, run: RunId, at: Option<Hash>) -> Result<Ledger, ChainError> {
        self.ask("ledger").await?.ledger(run, at).await
    }

    async fn claims(
        &self,
        run: RunId,
        account: AccountBytes,
        at: Option<Hash>,
    ) -> Result<Vec<Claim>, ChainError> {
        self.ask("claims").await?.claims(run, account, at).await
    }

    async fn balance(&self, account: AccountBytes, at: Option<Hash>) -> Result<Planck, ChainError> {
        self.ask("balance").await?.balance(account, at).await
    }

    async fn events_at(&self, block: Hash) -> Result<Vec<GauntletEvent>, ChainError> {
        self.ask("events").await?.events_at(block).await
    }

    async fn submit(&self, signer: &Keypair, call: Call) -> Result<Included, SubmitError> {
        let signer = keys::account(signer);
        // Signing comes before sending.
        if self.is_honest {
            self.world.sign(signer, &call);
        }
        let name = call.name();
        let broken = || SubmitError::Transport(DOWN.to_owned());
        self.ask(name).await.map_err(|_| broken())?;
        let mut link = self.world.link(self.who);
        let fate = match link.borrow().chain_lossy {
            true => self.world.draw(self.who, name) % 3,
            false => 2,
        };
        let is_held = link.borrow().commits_nothing && matches!(call, Call::CommitUpdate { .. });
        if fate == 0 || is_held {
            return Err(SubmitError::Dropped("the pool forgot it".to_owned()));
        }
        let answer = self.world.enqueue(signer, call);
        let answer = tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(broken())),
            _ = link.wait_for(|link| link.chain_down) => Err(broken()),
        };
        self.world.pass(self.who, "answer").await;
        if fate == 1 {
            return Err(broken());
        }
        answer
    }
}
