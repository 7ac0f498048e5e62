//! The chapter “From nothing to an audit” of docs/OPERATING.md, walked command by command on a plain development node.
//!
//! A block of the chapter is walked if a comment `<!-- walk -->` stands before it: each line is a command, run in one folder; with a
//! `&` at its end it goes on beside the others. `<!-- walk: FILE -->` writes the block into a file. What stands for a value is put in its
//! place by [`VALUES`].

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::localnet::gauntlet;

/// How long the way may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Milliseconds of a block.
const BLOCK_MILLIS: &str = "400";

/// What stands in the document, and what the test puts in its place.
const VALUES: [(&str, &str); 4] = [
    (
        "--dev ",
        "--dev --no-telemetry --no-prometheus --no-mdns --listen-addr=/ip4/127.0.0.1/tcp/0 ",
    ),
    ("--window-blocks 100", "--window-blocks 42"),
    ("--inner-steps 30", "--inner-steps 2 --batch-size 4"),
    ("--start-in 100", "--start-in 50"),
];

/// A step of the way.
#[derive(Debug, PartialEq)]
enum Step {
    /// A command, and whether it goes on beside the others.
    Run(String, bool),
    /// A file with this content.
    Write(String, String),
}

/// The steps of a document, as they stand there.
fn steps(document: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line.strip_prefix("<!-- walk").and_then(|rest| rest.strip_suffix("-->"))
        else {
            continue;
        };
        assert!(lines.next().unwrap().starts_with("```"), "a block follows {line:?}");
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match mark.trim().strip_prefix(':') {
            Some(file) => {
                steps.push(Step::Write(file.trim().to_owned(), block.join("\n") + "\n"));
            }
            None => steps.extend(block.into_iter().map(|line| match line.strip_suffix(" &") {
                Some(line) => Step::Run(line.to_owned(), true),
                None => Step::Run(line.to_owned(), false),
            })),
        }
    }
    steps
}

/// The chain's binary.
pub(crate) fn node() -> PathBuf {
    let beside = || PathBuf::from(gauntlet()).with_file_name("gauntlet-node");
    std::env::var_os("GAUNTLET_NODE").map_or_else(beside, PathBuf::from)
}

/// A folder in which commands are run, and what goes on there.
struct Place {
    folder: tempfile::TempDir,
    port: u16,
    environment: Vec<(String, String)>,
    running: Vec<(String, Child)>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = "A miner trains, a validator measures, and the chain keeps the books. ";
        let lines: Vec<String> = (0..6_000).map(|number| format!("{number}: {line}\n")).collect();
        std::fs::write(folder.path().join("text.txt"), lines.concat()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Both programs by their names, as if installed.
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(gauntlet(), bin.join("gauntlet")).unwrap();
        std::os::unix::fs::symlink(node(), bin.join("gauntlet-node")).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let url = format!("ws://127.0.0.1:{port}");
        let environment = [("PATH", path), ("GAUNTLET_URL", url)];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { folder, port, environment, running: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The text with values in the place of what stands for them.
    fn filled(&self, text: &str) -> String {
        let node = format!("gauntlet-node --rpc-port={} --block-millis={BLOCK_MILLIS}", self.port);
        let text = text.replace("gauntlet-node", &node);
        let text = text.replace("127.0.0.1:9944", &format!("127.0.0.1:{}", self.port));
        VALUES.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {line}")).current_dir(&self.folder);
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs a command that succeeds, and returns what it prints.
    fn succeed(&self, line: &str) -> String {
        let output = self.run(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}\n{}", self.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command that is refused in words that have all of `expected`.
    fn refuse(&self, line: &str, expected: &[&str]) {
        let output = self.run(line);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line}: {text}");
        for part in expected {
            assert!(text.contains(part), "{line}: {part:?} is not in {text}");
        }
    }

    /// Starts a command that goes on.
    fn start(&mut self, line: &str) {
        let name = format!("{}.log", self.running.len());
        let log = std::fs::File::create(self.path(&name)).unwrap();
        let mut command = self.command(line);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push((name, command.spawn().unwrap()));
        if line.starts_with("gauntlet-node") {
            self.wait_for("a chain that answers", || {
                !String::from_utf8_lossy(&self.run("gauntlet status 9").stderr)
                    .contains("cannot reach")
            });
        }
    }

    fn walk(&mut self, step: &Step) -> String {
        match step {
            Step::Write(file, content) => {
                std::fs::write(self.path(file), self.filled(content)).unwrap();
            }
            Step::Run(line, true) => self.start(&self.filled(line)),
            Step::Run(line, false) => match line.strip_prefix("export ") {
                Some(set) => {
                    let (name, value) = set.split_once('=').unwrap();
                    self.environment.push((name.to_owned(), value.trim_matches('\'').to_owned()));
                }
                None => return self.succeed(&self.filled(line)),
            },
        }
        String::new()
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < PATIENCE, "there never was {what}:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// The end of what the participants have said; the node's own log says little.
    fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        self.running.iter().map(|(name, _)| format!("== {name}\n{}\n", tail(name))).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn chapter() -> Vec<Step> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATING.md");
    steps(&std::fs::read_to_string(document).unwrap())
}

#[test]
fn what_the_document_says_leads_from_nothing_to_an_audit() {
    let steps = chapter();
    let text = format!("{steps:?}");
    for (from, _) in VALUES {
        assert!(text.contains(from), "{from} stands nowhere");
    }
    let mut place = Place::new();
    let mut audited = false;
    for step in &steps {
        match step {
            // Until both miners' updates of one window are settled.
            Step::Run(line, _) if line.starts_with("gauntlet audit") => {
                let line = place.filled(line);
                place.wait_for("a settled window with both miners' updates", || {
                    let output = place.run(&line);
                    let said = String::from_utf8_lossy(&output.stdout);
                    output.status.success() && said.contains("accepted [0, 1]")
                });
                audited = true;
            }
            step => {
                place.walk(step);
            }
        }
    }
    assert!(audited);
}

/// A participant's configuration; `more` is of `[keys]`.
pub(crate) fn config(
    folder: &str,
    model: &str,
    data: &str,
    chain: &str,
    hot: &str,
    more: &str,
) -> String {
    format!(
        "name = \"{folder}\"\nfolder = \"{folder}\"\nmodel = \"{model}\"\ndata = \"{data}\"\n\
         [chain]\nurls = [\"ws://127.0.0.1:9944\"]\n{chain}\n[keys]\nhot = {{ uri = \"//walk//{hot}\" }}\n{more}\n"
    )
}

pub(crate) fn cold(uri: &str) -> String {
    format!("cold = {{ uri = \"{uri}\" }}")
}

#[test]
fn what_cannot_work_is_refused_by_its_cause_before_anything_is_signed() {
    let mut place = Place::new();
    place.refuse("gauntlet run show 0", &["cannot reach a chain at ws://"]);
    place.start(&place.filled("gauntlet-node --dev --base-path chain"));
    place.refuse("gauntlet run show 9", &["there is no run 9 on this chain"]);
    place.succeed(
        "gauntlet data build --input text.txt --tokenizer bytes --sample-len 128 --out data",
    );
    place.succeed(
        "gauntlet data build --input bin/../text.txt --tokenizer bytes --sample-len 64 --out other",
    );

    let create = "gauntlet run create --data data --window-blocks 42 --start-in 2000";
    let poor = format!("{create} --inner-steps 2 --batch-size 4 --key-uri //walk//nobody");
    place.refuse(&poor, &["has 0.000 UNIT", "is held for the run", "gauntlet wallet send"]);
    let small = format!("{create} --inner-steps 1000000 --key-uri //Alice");
    place.refuse(&small, &["--inner-steps"]);
    let fits = format!("{create} --inner-steps 2 --batch-size 4 --key-uri //Alice");
    let settings = place.succeed(&format!("{fits} --dry-run"));
    let mut settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    settings["schedule"]["start_block"] = 1.into();
    std::fs::write(place.path("settings.json"), settings.to_string()).unwrap();
    place.wait_for("a second block", || {
        place
            .run("gauntlet run create --settings settings.json --data data --key-uri //Alice")
            .stderr
            .windows(10)
            .any(|words| words == b"--start-in")
    });
    place.succeed(&fits);
    place.refuse(
        "gauntlet wallet send --key-uri //walk//nobody --to bin --amount 1",
        &["is not an address"],
    );

    // Each with its cause; what it would have signed is the registration.
    let alice = cold("//Alice");
    let other_chain = format!("genesis = \"0x{}\"", "07".repeat(32));
    for (config, expected) in [
        (config("a", "nano", "data", &other_chain, "a", &alice), "has another chain"),
        (config("b", "1M", "data", "", "a", &alice), "this model is not the run's"),
        (config("c", "nano", "other", "", "a", &alice), "this data set is not the run's"),
        (
            config("d", "nano", "data", "", "a", &cold("//walk//nobody")),
            "joining costs 10.000 UNIT",
        ),
    ] {
        std::fs::write(place.path("refused.toml"), place.filled(&config)).unwrap();
        place.refuse("gauntlet miner --config refused.toml", &[expected]);
    }
    let status = place.succeed("gauntlet status --json");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["miners"], serde_json::json!([]));
    let said = |name: &str| {
        let output = place.run(&format!("gauntlet status --config {name}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(
        said("refused.toml").contains("d cannot work: the hot key"),
        "{}",
        said("refused.toml")
    );

    let miner = place.filled(&config("e", "nano", "data", "", "a", &alice));
    std::fs::write(place.path("e.toml"), miner).unwrap();
    let heir = place.filled(&config("f", "nano", "data", "", "a", &cold("//Bob")));
    std::fs::write(place.path("f.toml"), heir).unwrap();
    let mut running = place.command("gauntlet miner --config e.toml").spawn().unwrap();
    place.wait_for("a miner that waits for the run", || {
        said("e.toml").contains("the run begins at")
    });
    place.refuse("gauntlet miner --config f.toml", &["this hot key works for the cold account"]);
    place.refuse("gauntlet miner --config e.toml", &["another process's"]);

    // Its process ends by itself when nothing of it can be at fault any more: at once, as no window has begun.
    let hot = place.succeed("gauntlet wallet show --key-uri //walk//a");
    let hot = hot.split_whitespace().nth(1).unwrap().to_owned();
    place.refuse(
        &format!("gauntlet wallet leave --run 0 --hot {hot} --key-uri //Bob"),
        &["is no miner of run 0 for this cold key"],
    );
    let leave = format!("gauntlet wallet leave --run 0 --hot {hot} --key-uri //Alice");
    assert!(place.succeed(&leave).contains("it leaves"));
    place.wait_for("the miner's own end", || running.try_wait().unwrap().is_some());
    assert!(running.wait().unwrap().success());
}
