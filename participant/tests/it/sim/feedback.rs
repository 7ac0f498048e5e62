//! What an update that misses its commitment had in it is sent with the next.

use std::{collections::BTreeSet, sync::Arc};

use protocol::{
    settings::Settings,
    update::{Chunk, Payload},
    window::phase_at,
    BlockNumber,
};
use trainer::Model;

use super::{
    participants::Member,
    story::{model_config, schedule, Plan},
    tell,
    world::World,
};

/// The window in which the first miner's commitment is lost.
const WINDOW: u64 = 1;

/// Loses it, and notes of each miner how much of its update of that window is in the next one's, too, in percent.
fn lose(world: &Arc<World>, members: &[Member], block: BlockNumber) {
    let Some(moment) = phase_at(&schedule(), block) else { return };
    world.set_link(0, |link| link.commits_nothing = moment.window == WINDOW);
    if (moment.window, moment.offset) != (WINDOW + 1, schedule().commit_end) {
        return;
    }
    for miner in members.iter().filter(|member| member.name.starts_with("miner")) {
        let updates = [WINDOW, WINDOW + 1].map(|window| places(&miner.update(window).unwrap()));
        let again = updates[0].intersection(&updates[1]).count();
        world.note((100 * again / updates[0].len()).to_string());
    }
}

/// Where an update has values: chunk and position in it.
fn places(update: &[u8]) -> BTreeSet<(u32, u16)> {
    let model = Model::init(&model_config(), 0).unwrap();
    let payload = Payload::parse(update, model.layout(), Settings::example().training.keep);
    let payload = payload.unwrap();
    let mut places = BTreeSet::new();
    for index in 0..payload.chunk_count() {
        let mut chunk = Chunk::default();
        let len = model.layout().chunk_len(index).unwrap();
        payload.decode_into(index, len, &mut chunk).unwrap();
        places.extend(chunk.indices.into_iter().map(|position| (index, position)));
    }
    places
}

#[test]
fn an_update_that_missed_its_commitment_is_sent_with_the_next() {
    let summary = tell(Plan { script: Some(lose), ..Plan::calm(8, 4) });
    let [missed] = &summary.missed[..] else { panic!("{summary:?}") };
    assert!(missed.starts_with("miner-0: Commit of window 1: "), "{missed}");
    let again: Vec<usize> = summary.notes.iter().map(|note| note.parse().unwrap()).collect();
    assert!(again[0] >= 30 && again[1..].iter().all(|again| *again <= 10), "{again:?}");
}
