//! Draws what concerns a whole run: its life, its settings, its money, who owns it.

use pallet_collective::Instance1;
use pallet_gauntlet::{Call, LayoutVec, RunOffers, RunStatus, Runs};
use protocol::{
    settings::{ConsensusKind, Settings, StandingKind, YumaSettings},
    Planck,
};
use runtime::{AccountId, Runtime, RuntimeOrigin, System, UNIT};

use super::{Drawn, Scene, Script};
use crate::network::{layout, miner_hot, settings, RUN};

/// Runs that there are at once, mostly.
const RUNS: u32 = 4;

/// The settings of a run that comes and goes: small, quick and short of slots.
fn small_settings() -> Settings {
    let mut settings = settings();
    settings.training.overlap = true;
    let schedule = &mut settings.schedule;
    schedule.window_blocks = 12;
    (schedule.commit_end, schedule.reveal_end) = (4, 7);
    (schedule.attest_commit_end, schedule.attest_end) = (9, 11);
    (schedule.score_commit_end, schedule.score_reveal_end) = (3, 6);
    let incentive = &mut settings.incentive;
    incentive.uid_max = 4;
    (incentive.accepted_max, incentive.unscored_max) = (2, 2);
    incentive.probation_windows = 1;
    (incentive.permits_max, incentive.evaluators_per_miner) = (3, 2);
    incentive.challenge_chunks = 1;
    incentive.standing = StandingKind::PlackettLuce;
    settings.emission.release_ppm = 100_000;
    settings.staking.unbonding_windows = 12;
    settings.entry.immunity_windows = 1;
    settings.disputes.answer_blocks = 10;
    settings
}

impl Script {
    /// One of the calls of this file.
    pub(super) fn of_runs(&mut self, scene: &Scene) -> Drawn {
        let run = scene.run;
        match self.draws.below(26) {
            0..=2 => self.create_run(),
            3..=5 => self.set_params(scene),
            6 | 7 => {
                let settings = Box::new(self.forced_settings(&scene.settings));
                self.governed(Call::force_params { run, settings })
            }
            8 => self.managed(scene, Call::cancel_params { run }),
            9 | 10 => {
                let weight = self.draws.below(5) as u16 * 10_000;
                self.governed(Call::set_run_weight { run, weight })
            }
            // Seldom, as a run that is paused takes no updates.
            11 if self.draws.one_in(3) => self.managed(scene, Call::pause_run { run }),
            11..=13 => self.managed(scene, Call::resume_run { run }),
            14 | 15 => self.close_run(scene),
            16..=18 => self.reap_run(),
            19 | 20 => {
                let to = self.somebody();
                let to = (!self.draws.one_in(4)).then_some(to);
                self.managed(scene, Call::offer_run { run, to })
            }
            21 | 22 => {
                let offered = RunOffers::<Runtime>::get(run).map(|offer| offer.to);
                Drawn::signed(self.mostly(offered), Call::accept_run { run })
            }
            _ => self.fund_run(scene),
        }
    }

    /// A call that the governance alone may make; half of the time by who has no part in it, or too small a one.
    pub(super) fn governed(&mut self, call: Call<Runtime>) -> Drawn {
        match self.draws.below(4) {
            0 | 1 => self.by_governance(call),
            2 => Drawn { origin: council(1), call, is_foul: true },
            _ => Drawn { is_foul: true, ..Drawn::signed(self.somebody(), call) },
        }
    }

    /// A call that a run's owner and the governance may make, now and then by somebody else.
    fn managed(&mut self, scene: &Scene, call: Call<Runtime>) -> Drawn {
        match self.draws.below(8) {
            0 | 1 => self.by_governance(call),
            2 => Drawn { origin: council(1), call, is_foul: true },
            3 => self.by_stranger(scene, call),
            _ => Drawn::signed(owner_of(scene).unwrap_or_else(|| self.somebody()), call),
        }
    }

    fn by_governance(&mut self, call: Call<Runtime>) -> Drawn {
        let origin = if self.draws.one_in(2) { RuntimeOrigin::root() } else { council(2) };
        Drawn { origin, call, is_foul: false }
    }

    fn by_stranger(&mut self, scene: &Scene, call: Call<Runtime>) -> Drawn {
        let who = self.somebody();
        let is_foul = owner_of(scene).as_ref() != Some(&who);
        Drawn { is_foul, ..Drawn::signed(who, call) }
    }

    fn create_run(&mut self) -> Drawn {
        let mut settings = small_settings();
        let mut layout = layout().0;
        settings.schedule.start_block = System::block_number() + 1 + self.draws.below(20) as u32;
        let is_full = Runs::<Runtime>::count() >= RUNS && !self.draws.one_in(16);
        match self.draws.below(6) {
            0 => layout.clear(),
            1 => settings.schedule.reveal_end = 0,
            _ if is_full => settings.schedule.start_block = System::block_number(),
            2 => settings.incentive.standing = StandingKind::Gain,
            3 => settings.incentive.consensus = ConsensusKind::Yuma(YumaSettings::UPSTREAM),
            _ => {}
        }
        let (settings, layout) = (Box::new(settings), LayoutVec::truncate_from(layout));
        Drawn::signed(self.somebody(), Call::create_run { settings, layout })
    }

    fn set_params(&mut self, scene: &Scene) -> Drawn {
        let settings = Box::new(self.changed_settings(&scene.settings));
        let call = Call::set_params { run: scene.run, settings };
        match owner_of(scene).filter(|_| !self.draws.one_in(8)) {
            Some(owner) => Drawn::signed(owner, call),
            None => self.by_stranger(scene, call),
        }
    }

    /// A step that an owner may take, or one that is invalid, forbidden or too far.
    fn changed_settings(&mut self, now: &Settings) -> Settings {
        let mut settings = now.clone();
        let Settings { training, incentive, emission, disputes, .. } = &mut settings;
        match self.draws.below(10) {
            0 => incentive.power = 17,
            1 => emission.owner_ppm += 1,
            2 => training.keep += 1,
            3 => incentive.accepted_max *= 4,
            4 => {
                incentive.consensus = match incentive.consensus {
                    ConsensusKind::Gauntlet => ConsensusKind::Yuma(YumaSettings::UPSTREAM),
                    ConsensusKind::Yuma(_) => ConsensusKind::Gauntlet,
                }
            }
            5 => incentive.power = 14 + (incentive.power + 1) % 3,
            6 => incentive.challenge_chunks = 1 + incentive.challenge_chunks % 2,
            7 => incentive.claim_delay_windows = 1 + incentive.claim_delay_windows % 2,
            8 => disputes.jurors = 3 + disputes.jurors % 3,
            _ => {
                emission.owner_ppm = 50_000 + self.draws.below(100_000) as u32;
                emission.miners_ppm = 700_000 - emission.owner_ppm;
            }
        }
        settings
    }

    /// Farther than an owner may go, now and then too far.
    fn forced_settings(&mut self, now: &Settings) -> Settings {
        let mut settings = now.clone();
        let Settings { training, incentive, emission, staking, entry, .. } = &mut settings;
        match self.draws.below(10) {
            0 => incentive.claim_delay_windows = self.draws.below(34) as u32,
            1 => incentive.validator_stake_min = Planck::from(self.draws.below(300)) * UNIT,
            2 => entry.idle_windows = 1 + self.draws.below(4) as u32,
            3 => staking.unbonding_windows = 10 + self.draws.below(8) as u32,
            4 => staking.take_max_ppm = self.draws.below(300_000) as u32,
            5 => incentive.missed_penalty_ppm = self.draws.below(1_000_000) as u32,
            6 => {
                incentive.standing = match incentive.standing {
                    StandingKind::Gain => StandingKind::PlackettLuce,
                    StandingKind::PlackettLuce => StandingKind::Gain,
                }
            }
            7 => incentive.uid_max += 1,
            8 => training.model_seed += 1,
            _ => emission.release_ppm = 1 + self.draws.below(100_000) as u32,
        }
        settings
    }

    fn close_run(&mut self, scene: &Scene) -> Drawn {
        let call = Call::close_run { run: scene.run };
        if scene.run == RUN {
            // It goes on to the end of the walk: a hot key owns no run.
            return Drawn { is_foul: true, ..Drawn::signed(miner_hot(0), call) };
        }
        self.managed(scene, call)
    }

    /// Mostly of a run that is closed.
    fn reap_run(&mut self) -> Drawn {
        let any = self.draws.one_in(8);
        let is_closed =
            |record: &pallet_gauntlet::RunOf<Runtime>| any || record.status == RunStatus::Closed;
        let found = Runs::<Runtime>::iter().filter(|(_, record)| is_closed(record));
        let run = self.pick(found.map(|(run, _)| run)).unwrap_or(RUN);
        let rows = self.draws.below(200) as u32;
        Drawn::signed(self.somebody(), Call::reap_run { run, rows })
    }

    /// Somebody puts money into a run: much, little, or what is not enough.
    fn fund_run(&mut self, scene: &Scene) -> Drawn {
        let amount = match self.draws.below(8) {
            0 => Planck::from(self.draws.below(1_000)),
            1 => 10_000_000 * UNIT,
            _ => Planck::from(1 + self.draws.below(500)) * UNIT,
        };
        let per_window = Planck::from(self.draws.below(40)) * UNIT;
        Drawn::signed(self.somebody(), Call::fund_run { run: scene.run, amount, per_window })
    }
}

/// So many thirds of the council.
fn council(thirds: u32) -> RuntimeOrigin {
    pallet_collective::RawOrigin::<AccountId, Instance1>::Members(thirds, 3).into()
}

fn owner_of(scene: &Scene) -> Option<AccountId> {
    Runs::<Runtime>::get(scene.run).map(|record| record.owner)
}
