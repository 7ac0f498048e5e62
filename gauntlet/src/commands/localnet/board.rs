//! Collects what is known of a running localnet, by window, from the chain's events and the participants' diaries.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Result;
use node_client::{
    chain::{GauntletEvent, Offender},
    keys,
};
use protocol::{fault::reporter_part, AccountBytes, Planck, RunId, Uid, Window};

use super::{
    order::Member,
    report::{
        EmissionReport, LocalnetReport, ModelReport, ParticipantReport, ScoreReport, StateReport,
        WindowReport,
    },
};
use crate::terminal::{bytes, units};
use participant::{
    diary::{self, DiaryRecord, Duty, FaultKind},
    error::REFUSED,
};

/// Everything that is known.
pub(crate) struct Board {
    run: RunId,
    owner: AccountBytes,
    model: ModelReport,
    members: Vec<MemberState>,
    windows: BTreeMap<Window, WindowState>,
    restarts: Vec<String>,
    /// Lines about proofs that were not shown yet.
    news: Vec<String>,
}

/// What is known of a participant.
struct MemberState {
    member: Member,
    hot: AccountBytes,
    cold: AccountBytes,
    /// Holds the bonds of a validator's accusations and has what they earn.
    bonds: AccountBytes,
    /// Uid of a miner, index of a validator; known once it is registered.
    slot: Option<u16>,
    diary: diary::Reader,
    earned: Planck,
    /// Reveals that the chain refused.
    refused: u32,
    convictions: u32,
    slashed: Planck,
    rewarded: Planck,
    /// State root by window, as its diary says.
    states: BTreeMap<Window, String>,
}

/// What is known of a window.
#[derive(Default)]
struct WindowState {
    accepted: Option<Vec<Uid>>,
    state_root: Option<String>,
    settled: bool,
    void: Option<String>,
    held_out: Option<f64>,
    payouts: BTreeMap<AccountBytes, Planck>,
    update_bytes: u64,
    updates: u64,
    scores: BTreeMap<Uid, ScoreReport>,
    losses: BTreeMap<String, f32>,
    seconds: BTreeMap<&'static str, Vec<f64>>,
    missed: BTreeMap<&'static str, u32>,
    copies_refused: u32,
}

impl Board {
    /// Makes a board on which nothing is noted yet but the participants, whose diaries lie in the run's `folder`.
    ///
    /// # Errors
    /// A participant has no key.
    pub(crate) fn new(
        run: RunId,
        owner: AccountBytes,
        model: ModelReport,
        members: &[Member],
        folder: &Path,
    ) -> Result<Self> {
        let members = members.iter().map(|member| {
            Ok(MemberState {
                hot: keys::account(&keys::keypair_from_uri(&member.hot_uri())?),
                cold: keys::account(&keys::keypair_from_uri(&member.cold_uri())?),
                bonds: keys::account(&keys::keypair_from_uri(&member.bonds_uri())?),
                slot: None,
                diary: diary::Reader::new(&folder.join(&member.name)),
                earned: 0,
                refused: 0,
                convictions: 0,
                slashed: 0,
                rewarded: 0,
                states: BTreeMap::new(),
                member: member.clone(),
            })
        });
        let members = members.collect::<Result<Vec<_>>>()?;
        let (windows, restarts, news) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { run, owner, model, members, windows, restarts, news })
    }

    /// A participant's uid or index, as the chain gave it.
    pub(crate) fn registered(&mut self, hot: &AccountBytes, slot: u16) {
        if let Some(member) = self.members.iter_mut().find(|member| member.hot == *hot) {
            member.slot = Some(slot);
        }
    }

    /// A process ended before its time and was started again.
    pub(crate) fn restarted(&mut self, what: String) {
        self.restarts.push(what);
    }

    /// Takes in an event of the chain. Returns the window that it settles, if it does.
    pub(crate) fn event(&mut self, event: &GauntletEvent) -> Option<Window> {
        match event {
            GauntletEvent::UpdateRevealed { run, window, byte_len, .. } if *run == self.run => {
                let state = self.window(*window);
                state.update_bytes += byte_len;
                state.updates += 1;
            }
            GauntletEvent::CopyRefused { run, window, .. } if *run == self.run => {
                self.window(*window).copies_refused += 1;
            }
            GauntletEvent::WindowAccepted { run, window, state_root, accepted }
                if *run == self.run =>
            {
                let state = self.window(*window);
                state.accepted = Some(accepted.clone());
                state.state_root = state_root.map(|root| format!("0x{}", hex::encode(root)));
            }
            GauntletEvent::MinerScored {
                run,
                window,
                uid,
                own,
                random,
                standing_value,
                share,
                paid,
            } if *run == self.run => {
                let score = ScoreReport {
                    own: own.map(|gain| gain.to_f64()),
                    random: random.map(|gain| gain.to_f64()),
                    standing: standing_value.to_f64(),
                    share: share.to_f64(),
                };
                self.window(*window).scores.insert(*uid, score);
                self.pay_slot(*window, true, *uid, *paid);
            }
            GauntletEvent::ValidatorPaid { run, window, index, paid, .. } if *run == self.run => {
                self.pay_slot(*window, false, *index, *paid);
            }
            GauntletEvent::WindowSettled { run, window, paid, .. } if *run == self.run => {
                let account = self.owner;
                let state = self.window(*window);
                state.settled = true;
                if paid.owner > 0 {
                    *state.payouts.entry(account).or_default() += paid.owner;
                }
                return Some(*window);
            }
            GauntletEvent::FaultProven { run, window, uid, fault, reporter }
                if *run == self.run =>
            {
                self.convicted(*window, *uid, (*fault).into(), reporter);
            }
            GauntletEvent::Slashed { run, offender, amount, reporter, .. } if *run == self.run => {
                self.slashed(*offender, *amount, reporter.as_ref());
            }
            GauntletEvent::WindowVoid { run, window, .. } if *run == self.run => {
                self.window(*window).void = Some(format!("{event:?}"));
                return Some(*window);
            }
            _ => {}
        }
        None
    }

    /// Reads what the participants wrote since the last call.
    pub(crate) fn read_diaries(&mut self) {
        for index in 0..self.members.len() {
            match self.members[index].diary.read() {
                Ok(lines) => lines.into_iter().for_each(|line| self.line(index, line)),
                Err(error) => tracing::debug!(%error, "cannot read a diary"),
            }
        }
    }

    fn line(&mut self, index: usize, line: DiaryRecord) {
        let member = &mut self.members[index];
        let is_honest = member.member.adversary().is_none();
        let name = member.member.name.clone();
        if let DiaryRecord::Missed { duty: Duty::Reveal, reason, .. } = &line {
            member.refused += u32::from(reason.starts_with(REFUSED));
        }
        match line {
            DiaryRecord::Started { .. } => {}
            DiaryRecord::Trained { window, loss_last, .. } => {
                self.window(window).losses.insert(name, loss_last);
            }
            DiaryRecord::Done { window, duty, seconds } if is_honest => {
                self.window(window).seconds.entry(duty.name()).or_default().push(seconds);
            }
            DiaryRecord::Missed { window, duty, .. } if is_honest => {
                *self.window(window).missed.entry(duty.name()).or_default() += 1;
            }
            DiaryRecord::State { window, state_root, .. } => {
                member.states.insert(window, state_root);
            }
            DiaryRecord::HeldOut { window, loss } => {
                self.window(window).held_out.get_or_insert(loss);
            }
            DiaryRecord::Done { .. } | DiaryRecord::Missed { .. } | DiaryRecord::Proof { .. } => {}
        }
    }

    fn window(&mut self, window: Window) -> &mut WindowState {
        self.windows.entry(window).or_default()
    }

    /// The lines about proofs since the last call.
    pub(crate) fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    fn convicted(&mut self, window: Window, uid: Uid, fault: FaultKind, reporter: &AccountBytes) {
        let by = self.whose(reporter).map_or("somebody", |by| &by.member.name).to_owned();
        let Some(miner) = self.in_slot(true, uid) else { return };
        miner.convictions += 1;
        let name = &miner.member.name;
        let line =
            format!("{name} is convicted of window {window}: {}, proved by {by}", fault.name());
        self.news.push(line);
    }

    fn slashed(&mut self, offender: Offender, amount: Planck, reporter: Option<&AccountBytes>) {
        // Pools are not shown: which validator's one is, is not in the event.
        if let Offender::Miner { uid, .. } = offender {
            if let Some(miner) = self.in_slot(true, uid) {
                miner.slashed += amount;
                let line = format!("{} loses {} of its bond", miner.member.name, units(amount));
                self.news.push(line);
            }
        }
        if let Some(by) = reporter.and_then(|reporter| self.whose(reporter)) {
            by.rewarded += reporter_part(amount);
        }
    }

    /// Whose account this is.
    fn whose(&mut self, account: &AccountBytes) -> Option<&mut MemberState> {
        let is_its =
            |member: &&mut MemberState| [member.hot, member.cold, member.bonds].contains(account);
        self.members.iter_mut().find(is_its)
    }

    fn in_slot(&mut self, is_miner: bool, slot: u16) -> Option<&mut MemberState> {
        let has = |member: &&mut MemberState| {
            member.member.is_miner() == is_miner && member.slot == Some(slot)
        };
        self.members.iter_mut().find(has)
    }

    /// Adds a window's pay to a participant.
    fn pay_slot(&mut self, window: Window, is_miner: bool, slot: u16, paid: Planck) {
        let Some(member) = self.in_slot(is_miner, slot) else { return };
        member.earned += paid;
        let account = member.cold;
        if paid > 0 {
            *self.window(window).payouts.entry(account).or_default() += paid;
        }
    }

    /// The honest participants whose diaries say that they hold the state of `window`.
    pub(crate) fn hold_state(&self, window: Window) -> bool {
        let honest = self.members.iter().filter(|member| member.member.adversary().is_none());
        honest.into_iter().all(|member| member.states.contains_key(&window))
    }

    /// Whether the held-out loss at the start of `window` is known.
    pub(crate) fn has_held_out(&self, window: Window) -> bool {
        self.windows.get(&window).is_some_and(|state| state.held_out.is_some())
    }

    /// The newest losses, for the living line.
    pub(crate) fn losses_line(&self, window: Window) -> String {
        let held_out = self.windows.range(..=window).rev().find_map(|(_, state)| state.held_out);
        let trained = self.windows.get(&window).map(|state| state.losses.len()).unwrap_or(0);
        let mut text = String::new();
        if trained > 0 {
            text += &format!(" · {trained} trained");
        }
        if let Some(loss) = held_out {
            text += &format!(" · held-out loss {loss:.3}");
        }
        text
    }

    /// The lines that show a settled window.
    pub(crate) fn window_lines(&self, window: Window) -> Vec<String> {
        let Some(state) = self.windows.get(&window) else {
            return Vec::new();
        };
        let dense = self.dense_bytes(state);
        let ratio = dense.checked_div(state.update_bytes).unwrap_or(0);
        let held_out = state
            .held_out
            .map_or("held-out loss ?".into(), |loss| format!("held-out loss {loss:.3}"));
        let root = state
            .state_root
            .as_deref()
            .map_or("no final state", |root| root.get(..10).unwrap_or(root));
        let mut lines = vec![format!(
            "window {window:>3}  {held_out}  state {root}  sent {} of {} dense ({ratio}x)",
            bytes(state.update_bytes),
            bytes(dense),
        )];
        if let Some(void) = &state.void {
            lines.push(format!("            VOID: {void}"));
        }
        for member in &self.members {
            let paid = state.payouts.get(&member.cold).copied().unwrap_or(0);
            let name = &member.member.name;
            let accepted = match (&state.accepted, member.slot) {
                (Some(accepted), Some(uid))
                    if member.member.is_miner() && accepted.contains(&uid) =>
                {
                    "accepted"
                }
                _ => "",
            };
            let loss =
                state.losses.get(name).map_or(String::new(), |loss| format!("loss {loss:.3}"));
            lines.push(format!(
                "            {name:<14} {loss:<12} {accepted:<9} pay {:>8}",
                units(paid)
            ));
        }
        lines
    }

    fn dense_bytes(&self, state: &WindowState) -> u64 {
        state.updates * self.model.parameters * 4
    }

    /// The report after `windows` windows.
    pub(crate) fn report(
        &self,
        windows: Window,
        emission: EmissionReport,
        seconds: f64,
    ) -> LocalnetReport {
        let mut report = LocalnetReport {
            ok: false,
            problems: Vec::new(),
            windows: (0..windows).map(|window| self.window_report(window)).collect(),
            participants: self.members.iter().map(participant_report).collect(),
            last_state: StateReport {
                window: windows,
                state_root: self.common_state(windows).unwrap_or_default(),
                heldout_loss: self.windows.get(&windows).and_then(|state| state.held_out),
            },
            model: self.model.clone(),
            run: self.run,
            owner: keys::address(&self.owner),
            restarts: self.restarts.clone(),
            emission,
            seconds,
            training_share: 0.0,
        };
        report.problems = self.problems(windows, &report.emission);
        report.ok = report.problems.is_empty();
        report
    }

    fn window_report(&self, window: Window) -> WindowReport {
        let Some(state) = self.windows.get(&window) else {
            return WindowReport { window, ..WindowReport::default() };
        };
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        WindowReport {
            window,
            accepted: state.accepted.clone().unwrap_or_default(),
            state_root: state.state_root.clone().unwrap_or_default(),
            heldout_loss: state.held_out,
            payouts: state
                .payouts
                .iter()
                .map(|(account, amount)| (keys::address(account), *amount))
                .collect(),
            update_bytes: state.update_bytes,
            dense_bytes: self.dense_bytes(state),
            phase_seconds: state
                .seconds
                .iter()
                .map(|(duty, seconds)| ((*duty).to_owned(), mean(seconds)))
                .collect(),
            missed: state.missed.iter().map(|(duty, count)| ((*duty).to_owned(), *count)).collect(),
            train_losses: state.losses.clone(),
            scores: self.scores_by_name(state),
        }
    }

    fn scores_by_name(&self, state: &WindowState) -> BTreeMap<String, ScoreReport> {
        let miners = self.members.iter().filter(|state| state.member.is_miner());
        miners
            .filter_map(|miner| {
                let score = state.scores.get(&miner.slot?)?;
                Some((miner.member.name.clone(), score.clone()))
            })
            .collect()
    }

    /// The state root of `window` that all honest participants who wrote one down have in common.
    fn common_state(&self, window: Window) -> Option<String> {
        let honest = self.members.iter().filter(|member| member.member.adversary().is_none());
        let roots: BTreeSet<&String> =
            honest.filter_map(|member| member.states.get(&window)).collect();
        match (roots.len(), roots.first()) {
            (1, Some(root)) => Some((*root).clone()),
            _ => None,
        }
    }

    /// The problems that the report lists.
    fn problems(&self, windows: Window, emission: &EmissionReport) -> Vec<String> {
        let mut problems = Vec::new();
        for window in 0..windows {
            let Some(state) = self.windows.get(&window) else {
                problems.push(format!("nothing is known of window {window}"));
                continue;
            };
            if let Some(void) = &state.void {
                problems.push(format!("window {window} is void: {void}"));
            } else if !state.settled {
                problems.push(format!("window {window} is not settled"));
            }
            let Some(root) = &state.state_root else {
                problems.push(format!("window {window} has no final state root"));
                continue;
            };
            for member in self.members.iter().filter(|member| member.member.adversary().is_none()) {
                if member.states.get(&window).is_some_and(|held| held != root) {
                    let name = &member.member.name;
                    problems.push(format!("{name} held another state in window {window}"));
                }
            }
        }
        if !emission.is_conserved() {
            problems.push(format!("the emission is not conserved: {emission:?}"));
        }
        problems
    }
}

fn participant_report(member: &MemberState) -> ParticipantReport {
    ParticipantReport {
        name: member.member.name.clone(),
        role: member.member.role.clone(),
        account: keys::address(&member.cold),
        uid: member.slot.unwrap_or_default(),
        kind: member.member.kind.clone(),
        earned: member.earned,
        reveals_refused: member.refused,
        convictions: member.convictions,
        slashed: member.slashed,
        rewarded: member.rewarded,
    }
}
