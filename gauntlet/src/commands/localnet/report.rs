//! Writes the report of a localnet: everything that happened, in numbers, as JSON.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use protocol::{
    emission::{Ledger, Pots},
    Planck, RunId, Uid, Window,
};
use serde::{Deserialize, Serialize, Serializer};

/// Name of the report in the run's folder.
pub(crate) const REPORT_FILE: &str = "report.json";

/// The results of a localnet's run.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct LocalnetReport {
    /// Whether every window was settled with one final state root, which all honest participants held, and no unit of
    /// the emission is missing.
    pub ok: bool,
    /// The problems, if not.
    pub problems: Vec<String>,
    /// The windows in order.
    pub windows: Vec<WindowReport>,
    /// Everybody who took part.
    pub participants: Vec<ParticipantReport>,
    /// Where every unit of the emission is.
    pub emission: EmissionReport,
    /// The parameters after the last window.
    pub last_state: StateReport,
    /// Name of the model and its number of parameters.
    pub model: ModelReport,
    /// The run on its chain.
    pub run: RunId,
    /// Account of the run's owner, who receives the owner's part.
    pub owner: String,
    /// Processes that ended before their time and were started again.
    pub restarts: Vec<String>,
    /// Wall-clock seconds from the start of the command to this report.
    pub seconds: f64,
    /// The part of the windows' time in which an honest miner trained, on average over windows and miners.
    #[serde(default)]
    pub training_share: f64,
}

/// One window in numbers.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct WindowReport {
    /// The window, counted from 0.
    pub window: Window,
    /// The miners whose updates were applied.
    pub accepted: Vec<Uid>,
    /// The final root of the parameters at its start, with 0x; empty if there was none.
    pub state_root: String,
    /// Held-out loss of these parameters in nats a token.
    pub heldout_loss: Option<f64>,
    /// Pay by account (ss58) in planck.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub payouts: BTreeMap<String, Planck>,
    /// Bytes of all revealed updates.
    pub update_bytes: u64,
    /// Bytes that the same updates would have in f32.
    pub dense_bytes: u64,
    /// Seconds that each duty took, the mean over the honest participants that did it.
    pub phase_seconds: BTreeMap<String, f64>,
    /// How many participants missed each duty.
    pub missed: BTreeMap<String, u32>,
    /// Loss of each miner's last local step, by name.
    pub train_losses: BTreeMap<String, f32>,
    /// What the settlement made of each miner, by name.
    #[serde(default)]
    pub scores: BTreeMap<String, ScoreReport>,
}

/// A miner's numbers in one settlement.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ScoreReport {
    /// Median relative improvement on the miner's own samples; none without a quorum of evaluations.
    pub own: Option<f64>,
    /// The same on random samples.
    pub random: Option<f64>,
    /// The standing F after this window.
    pub standing: f64,
    /// Its part of the miners' pot, 0 to 1.
    pub share: f64,
}

/// One participant in numbers.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ParticipantReport {
    /// Its name.
    pub name: String,
    /// `miner` or `validator`.
    pub role: String,
    /// The account that is paid (ss58).
    pub account: String,
    /// A miner's uid, a validator's index.
    pub uid: Uid,
    /// `honest`, or the adversary's name.
    pub kind: String,
    /// Pay of all windows in planck.
    #[serde(with = "planck")]
    pub earned: Planck,
    /// Reveals that the chain refused.
    pub reveals_refused: u32,
    /// Faults that were proven of it.
    #[serde(default)]
    pub convictions: u32,
    /// What they cost it, in planck.
    #[serde(default, with = "planck")]
    pub slashed: Planck,
    /// What it had for proving faults of others, in planck.
    #[serde(default, with = "planck")]
    pub rewarded: Planck,
}

/// Where every unit of the run's money is, in planck:
/// `minted + funded = paid + claimable + carried + unspent + slashed + burned`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct EmissionReport {
    /// Given by the chain's schedule.
    #[serde(with = "planck")]
    pub minted: Planck,
    /// Put in by sponsors.
    #[serde(with = "planck")]
    pub funded: Planck,
    /// Transferred by claims.
    #[serde(with = "planck")]
    pub paid: Planck,
    /// Earned and not claimed yet.
    #[serde(with = "planck")]
    pub claimable: Planck,
    /// The owner's, not earned yet.
    #[serde(with = "planck")]
    pub carried_owner: Planck,
    /// The miners', not earned yet.
    #[serde(with = "planck")]
    pub carried_miners: Planck,
    /// The validators', not earned yet.
    #[serde(with = "planck")]
    pub carried_validators: Planck,
    /// Of sponsors, for windows to come.
    #[serde(with = "planck")]
    pub unspent: Planck,
    /// Taken from unclaimed pay for a fault.
    #[serde(with = "planck")]
    pub slashed: Planck,
    /// Destroyed, or given back to the schedule.
    #[serde(with = "planck")]
    pub burned: Planck,
}

impl From<Ledger> for EmissionReport {
    fn from(ledger: Ledger) -> Self {
        let Ledger { minted, funded, paid, claimable, unspent, slashed, burned, .. } = ledger;
        let Pots { owner, miners, validators } = ledger.carried();
        Self {
            minted,
            funded,
            paid,
            claimable,
            carried_owner: owner,
            carried_miners: miners,
            carried_validators: validators,
            unspent,
            slashed,
            burned,
        }
    }
}

impl EmissionReport {
    /// Whether the parts are the whole, exactly.
    pub fn is_conserved(&self) -> bool {
        let Self { minted, funded, paid, claimable, unspent, slashed, burned, .. } = *self;
        let (carried_owner, carried_miners) = (self.carried_owner, self.carried_miners);
        let carried_validators = self.carried_validators;
        Ledger {
            minted,
            funded,
            paid,
            claimable,
            carried_owner,
            carried_miners,
            carried_validators,
            unspent,
            slashed,
            burned,
        }
        .is_conserved()
    }
}

/// Parameters and how good they are.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct StateReport {
    /// Windows that led here.
    pub window: Window,
    /// State root with 0x.
    pub state_root: String,
    /// Held-out loss in nats a token.
    pub heldout_loss: Option<f64>,
}

/// The model that was trained.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ModelReport {
    /// Name of its preset.
    pub name: String,
    /// Number of its parameters.
    pub parameters: u64,
}

/// Amounts as decimal text: JSON's numbers lose digits.
mod planck {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Planck, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Planck, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

fn as_text<S: Serializer>(payouts: &BTreeMap<String, Planck>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(payouts.iter().map(|(account, amount)| (account, amount.to_string())))
}

fn from_text<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, Planck>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(from)?;
    texts
        .into_iter()
        .map(|(account, amount)| Ok((account, amount.parse().map_err(serde::de::Error::custom)?)))
        .collect()
}

impl LocalnetReport {
    /// Works out how much of its windows, of so many seconds each, was training.
    pub(crate) fn with_training_share(mut self, window_seconds: f64) -> Self {
        let windows = self.windows.len().max(1) as f64;
        let trained = self.windows.iter().filter_map(|window| window.phase_seconds.get("train"));
        self.training_share = trained.sum::<f64>() / (windows * window_seconds);
        self
    }

    /// Writes the report to `path`.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_text_and_come_back() {
        let mut report = LocalnetReport::default();
        let payouts = BTreeMap::from([("5Grw".to_owned(), u128::MAX)]);
        report.windows.push(WindowReport { payouts, ..WindowReport::default() });
        report.emission.minted = 7;
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains("\"340282366920938463463374607431768211455\""), "{json}");
        assert!(json.contains("\"minted\":\"7\""), "{json}");
        assert_eq!(serde_json::from_str::<LocalnetReport>(&json).unwrap(), report);
    }

    #[test]
    fn emission_is_conserved_to_the_unit() {
        let mut emission = EmissionReport {
            minted: 4,
            funded: 6,
            paid: 3,
            claimable: 3,
            carried_miners: 2,
            unspent: 2,
            ..EmissionReport::default()
        };
        assert!(emission.is_conserved());
        emission.carried_owner = 1;
        assert!(!emission.is_conserved());
    }
}
