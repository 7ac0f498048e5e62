//! Checkpoints: exact resume, damage, and a child process that is killed while it writes them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use protocol::{aggregate::OuterRule, settings::PPM};
use trainer::{CheckpointError, Checkpoints, Model, ModelConfig, MuonSettings, Position};

use crate::learning::{config, go_on, steps, trainer, trainer_with};
use crate::samples::MemorySamples;

fn position(window: u64) -> Position {
    Position { run: 3, window, trained: false, note: "here".to_owned() }
}

/// The newest checkpoint's two files: what makes it one, and its only part.
fn newest_files(folder: &Path) -> [PathBuf; 2] {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-"))
        .collect();
    files.sort();
    let part = files.pop().unwrap();
    [files.pop().unwrap(), part]
}

/// Its values.
fn newest(folder: &Path) -> PathBuf {
    let [_, part] = newest_files(folder);
    part
}

#[test]
fn a_restored_trainer_goes_on_bit_for_bit() {
    for muon in [None, Some(MuonSettings::default())] {
        goes_on_bit_for_bit(muon);
    }
}

fn goes_on_bit_for_bit(muon: Option<MuonSettings>) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    assert!(checkpoints.load(&config()).unwrap().is_none());
    let samples = MemorySamples::words(32, 64, 2);
    let window = |trainer: &mut trainer::Trainer, number: u64| {
        let steps = steps(&samples, 5, number * 20);
        trainer.train_window(&samples, &steps, &|_| 3e-3, &mut go_on).unwrap();
        let update = trainer.make_update(64, 950_000).unwrap();
        trainer.apply_outer(&[(0, &update)], 64, OuterRule::new(900_000, PPM)).unwrap();
        update
    };
    let mut first = trainer_with(1, muon);
    window(&mut first, 0);
    first.save(&checkpoints, &position(1)).unwrap();
    let expected = window(&mut first, 1);

    let mut second = trainer_with(1, muon);
    let checkpoint = checkpoints.load(&config()).unwrap().unwrap();
    assert_eq!(second.restore(checkpoint).unwrap(), position(1));
    assert_eq!(second.optimiser_step(), 5);
    assert_eq!(window(&mut second, 1), expected);
    assert_eq!(second.state_root(), first.state_root());
}

#[test]
fn a_checkpoint_of_another_optimiser_is_refused_and_changes_nothing() {
    let samples = MemorySamples::words(32, 64, 2);
    let kinds = [None, Some(MuonSettings::default())];
    for (saved, restored) in [(kinds[0], kinds[1]), (kinds[1], kinds[0])] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let mut first = trainer_with(1, saved);
        let update = train(&mut first, &samples);
        first.apply_outer(&[(0, &update)], 64, OuterRule::new(PPM, PPM)).unwrap();
        first.save(&checkpoints, &position(1)).unwrap();

        let mut second = trainer_with(1, restored);
        let root = second.state_root();
        let expected = train(&mut trainer_with(1, restored), &samples);
        let refused = second.restore(checkpoints.load(&config()).unwrap().unwrap());
        let name = |muon: Option<MuonSettings>| if muon.is_some() { "Muon" } else { "AdamW" };
        let said = refused.unwrap_err().to_string();
        let (found, own) = (name(saved), name(restored));
        let expected_words =
            format!("the checkpoint is of a training with {found}, this one is with {own}");
        assert_eq!(said, expected_words);
        assert_eq!(second.state_root(), root);
        assert_eq!(train(&mut second, &samples), expected);
    }
}

/// The update of a window.
fn train(trainer: &mut trainer::Trainer, samples: &MemorySamples) -> Vec<u8> {
    let steps = steps(samples, 3, 0);
    trainer.train_window(samples, &steps, &|_| 3e-3, &mut go_on).unwrap();
    trainer.make_update(64, 950_000).unwrap()
}

#[test]
fn muons_checkpoint_lacks_an_average_of_the_layers_matrices_and_is_read_as_others_are() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let kinds = [None, Some(MuonSettings::default())];
    let lens: Vec<u64> = kinds
        .into_iter()
        .zip(&folders)
        .map(|(muon, folder)| {
            let checkpoints = Checkpoints::open(folder.path()).unwrap();
            let mut trainer = trainer_with(1, muon);
            trainer.save(&checkpoints, &position(1)).unwrap();
            let alone = checkpoints.load_model(&config()).unwrap().unwrap();
            assert_eq!(alone.parameters(), trainer.model().parameters());
            fs::metadata(newest(folder.path())).unwrap().len()
        })
        .collect();
    let saved = config().arena().layer_matrix_len() as u64 * 4;
    assert_eq!(lens[0] - lens[1], saved);

    let checkpoints = Checkpoints::open(folders[1].path()).unwrap();
    trainer_with(1, kinds[1]).save(&checkpoints, &position(2)).unwrap();
    let path = newest(folders[1].path());
    let whole = fs::read(&path).unwrap();
    let found = || checkpoints.load(&config()).unwrap().unwrap().position().clone();
    assert_eq!(found(), position(2));
    let middle = whole.len() / 2;
    let mut corrupt = whole.clone();
    corrupt[middle] ^= 1;
    // Without the error feedback it has the length of a training's without a chain.
    let shorter = whole.len() - config().parameter_count() as usize * 4;
    for damaged in [&corrupt[..], &whole[..middle], &whole[..shorter]] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(found(), position(1), "{} of {}", damaged.len(), whole.len());
    }
}

#[test]
fn damaged_newest_falls_back_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let mut trainer = trainer(1);
    for window in 0..5 {
        trainer.save(&checkpoints, &position(window)).unwrap();
    }
    // A file that makes a checkpoint and a part each.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    let load = || checkpoints.load(&config()).map(|found| found.unwrap().position().window);
    for path in newest_files(folder.path()) {
        let whole = fs::read(&path).unwrap();
        assert_eq!(load().unwrap(), 4);
        for place in [0, 9, 40, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x40;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(load().unwrap(), 3, "flipped at {place}");
        }
        for len in [0, 5, 100, whole.len() / 3, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(load().unwrap(), 3, "cut to {len}");
        }
        let longer = [&whole[..], b"more"].concat();
        fs::write(&path, longer).unwrap();
        assert_eq!(load().unwrap(), 3, "longer");
        fs::write(&path, &whole).unwrap();
    }
    let [_, part] = newest_files(folder.path());
    fs::remove_file(part).unwrap();
    assert_eq!(load().unwrap(), 3, "without its values");
    // What is written next is newer than both.
    trainer.save(&checkpoints, &position(9)).unwrap();
    assert_eq!(load().unwrap(), 9);
    for entry in fs::read_dir(folder.path()).unwrap() {
        fs::write(entry.unwrap().path(), b"nothing").unwrap();
    }
    assert!(matches!(load(), Err(CheckpointError::NoneWhole { count: 2, .. })));
}

/// The optimiser's arrays behind it are not kept, but checked.
#[test]
fn a_model_is_read_alone_from_a_whole_checkpoint_only() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    assert!(checkpoints.load_model(&config()).unwrap().is_none());
    let mut trainer = trainer(1);
    trainer.save(&checkpoints, &position(1)).unwrap();
    let model = checkpoints.load_model(&config()).unwrap().unwrap();
    assert_eq!(model.parameters(), trainer.model().parameters());
    let path = newest(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.len() - 40;
    bytes[place] ^= 0x40;
    fs::write(&path, &bytes).unwrap();
    let damaged = checkpoints.load_model(&config());
    assert!(matches!(damaged, Err(CheckpointError::NoneWhole { .. })));
}

#[test]
fn models_are_saved_alone_and_other_shapes_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let model = Model::init(&config(), 8).unwrap();
    checkpoints.save_model(&model, &position(2)).unwrap();
    let found = checkpoints.load(&config()).unwrap().unwrap();
    assert_eq!(found.model().parameters(), model.parameters());
    let mut restored = trainer(1);
    restored.restore(found).unwrap();
    assert_eq!(restored.model().parameters(), model.parameters());
    let other = ModelConfig { ffn: 96, ..config() };
    assert!(matches!(checkpoints.load(&other), Err(CheckpointError::Shape)));
    let same_size = ModelConfig { norm_epsilon: 1e-6, ..config() };
    assert!(matches!(checkpoints.load(&same_size), Err(CheckpointError::Shape)));
    let long = Position { note: "x".repeat(5000), ..position(0) };
    assert!(matches!(checkpoints.save_model(&model, &long), Err(CheckpointError::Note(5000))));
}

/// Names the folder to the child process below.
const FOLDER: &str = "TRAINER_TEST_CHECKPOINTS";

/// The child: writes checkpoint after checkpoint, each with parameters that its window determines,
/// and says so once it is on the disk. In a normal run of the tests it does nothing.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let checkpoints = Checkpoints::open(Path::new(&folder)).unwrap();
    let start = checkpoints.load(&config()).unwrap().map_or(0, |found| found.position().window);
    for window in start + 1.. {
        let model = Model::init(&config(), window).unwrap();
        checkpoints.save_model(&model, &position(window)).unwrap();
        println!("\nwritten {window}");
    }
}

#[test]
fn nothing_is_lost_when_the_writer_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let mut delays = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["checkpoints::child_writes_until_it_is_killed", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut written = 0;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // After some checkpoints, and then a moment that differs from round to round.
        for line in lines.by_ref() {
            if let Some(window) = line.unwrap().strip_prefix("written ") {
                written = window.parse().unwrap();
                break;
            }
        }
        assert!(written > 0, "the child wrote nothing");
        delays = delays.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..delays >> 46 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            if let Some(window) = line.unwrap().strip_prefix("written ") {
                written = window.parse().unwrap();
            }
        }
        let found = checkpoints.load(&config()).unwrap().unwrap();
        let window = found.position().window;
        // The kill may fall between the disk and the child's word for it.
        assert!(window == written || window == written + 1, "{window} after {written}");
        let expected = Model::init(&config(), window).unwrap();
        assert_eq!(found.model().parameters(), expected.parameters());
    }
    // What a kill left behind goes with the next checkpoint.
    fs::write(folder.path().join("checkpoint-000000999999.3"), b"half").unwrap();
    checkpoints.save_model(&Model::init(&config(), 1).unwrap(), &position(9)).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}
