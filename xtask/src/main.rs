//! Set-up and development commands: `cargo xtask` lists them.
//!
//! Each command first makes the machine ready ([`setup`]), then calls cargo with one profile and one feature set
//! ([`build`]), so that no dependency is compiled twice.

mod failure;

mod command;

mod wasm_toolchain;

mod wheel;

mod nvrtc;

mod setup;

mod steps;

mod build;

mod tidy;

mod kernels;

mod javascript;

mod netlab;

mod test;

mod weights;

use std::{
    env,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use failure::Failure;
use setup::Setup;
use steps::Steps;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  localnet [OPTIONS]   Start a chain, miners and validators that train a model together; --help lists the options.
  gauntlet ARGUMENTS   Build the program `gauntlet` if need be, and run it.
  test [--timings]     Run every check: format, tidy, lints, build, tests, documentation, a short localnet.
  kernels              Compile the GPU's kernels for every architecture, and check what each takes of one.
  javascript           Read and write a development chain with polkadot.js and polkadot-api.
  netlab [NAMES]       Measure peers on slow, far, lossy links, behind NATs and beside rogues; root; --json FILE writes the figures.
  tidy                 Check the rules of the layout alone: layers, circles of files, references.
  study [OPTIONS]      Compare ways to train together on a small model, into docs/study; --quick for a minute of it.
  simulate [OPTIONS]   Play modelled miners and validators on the real runtime, into docs/study; --quick for a minute of it.
  build [--timings]    Build the programs, and show where they are.
  cargo ARGUMENTS      Call cargo as the other commands do, with the same set-up and built files: test --release -p gauntlet-protocol.
  setup                Make this machine ready to build, and show what is used.
  wasm                 Build the runtime's Wasm blob, and show where it is.
  weights              Measure what the pallet's calls and steps weigh, with frame-omni-bencher.
  metadata             Write the runtime's metadata for node-client anew.

Built files go to $CARGO_TARGET_DIR, or else to gauntlet/target in the user's cache folder.";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let command = args.next();
    let rest: Vec<String> = args.collect();

    let outcome = match command.as_deref() {
        None | Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(())
        }
        Some("localnet") => localnet(&rest),
        Some("gauntlet") => gauntlet("gauntlet", "what was asked for", &[], &rest),
        Some("study") => study(&rest),
        Some("simulate") => simulate(&rest),
        Some("test") => no_more(&rest, &["--timings"])
            .and_then(|()| test::run(rest.iter().any(|arg| arg == "--timings"))),
        Some("kernels") => no_more(&rest, &[]).and_then(|()| kernels::run()),
        Some("javascript") => no_more(&rest, &[]).and_then(|()| javascript::run()),
        Some("netlab") => netlab::run(&rest),
        Some("weights") => no_more(&rest, &[]).and_then(|()| weights::run()),
        Some("tidy") => no_more(&rest, &[]).and_then(|()| tidy::run(&Setup::ensure()?)),
        Some("build") => no_more(&rest, &["--timings"]).and_then(|()| show_build(&rest)),
        Some("cargo") => Setup::ensure().and_then(|setup| build::any(&setup, &rest)),
        Some("setup") => no_more(&rest, &[]).and_then(|()| {
            print!("{}", Setup::ensure()?);
            Ok(())
        }),
        Some("wasm") => no_more(&rest, &[]).and_then(|()| show_wasm()),
        Some("metadata") => {
            no_more(&rest, &[]).and_then(|()| build::write_metadata(&Setup::ensure()?))
        }
        Some(other) => Err(format!("there is no command `{other}`\n\n{USAGE}")),
    };

    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Refuses arguments other than those `known`.
fn no_more(args: &[String], known: &[&str]) -> Result<(), Failure> {
    match args.iter().find(|arg| !known.contains(&arg.as_str())) {
        Some(arg) => Err(format!("unknown argument `{arg}`")),
        None => Ok(()),
    }
}

/// Builds what is needed and becomes `gauntlet localnet`.
fn localnet(args: &[String]) -> Result<(), Failure> {
    gauntlet("localnet", "a chain and those who train on it", &["localnet"], args)
}

/// Builds what is needed and becomes `gauntlet` with the arguments `first` and `args`, as a step of this name.
fn gauntlet(
    name: &'static str,
    about: &str,
    first: &[&str],
    args: &[String],
) -> Result<(), Failure> {
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    steps.take("build", build::ABOUT, || build::programs(&setup, &[]))?;
    steps.take(name, about, || become_program(&setup.program("gauntlet"), first, args))
}

/// Builds what is needed and becomes the trainer's example `study`.
fn study(args: &[String]) -> Result<(), Failure> {
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    steps.take("build", build::ABOUT, || build::example(&setup, "study"))?;
    steps.take("study", "an hour; a minute with --quick", || {
        become_program(&setup.release_folder().join("examples/study"), &[], args)
    })
}

/// Builds what is needed and becomes the simulator.
fn simulate(args: &[String]) -> Result<(), Failure> {
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    steps.take("build", build::ABOUT, || build::simulator(&setup))?;
    steps.take("simulate", "some minutes; less than one with --quick", || {
        become_program(&setup.program("simulator"), &[], args)
    })
}

fn show_build(extra: &[String]) -> Result<(), Failure> {
    let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
    let setup = built(&extra)?;
    for name in build::PROGRAMS {
        println!("{}", setup.program(name).display());
    }
    Ok(())
}

fn show_wasm() -> Result<(), Failure> {
    let setup = built(&[])?;
    let folder = setup.release_folder().join("wbuild/runtime");
    let blob = folder.join("runtime.compact.compressed.wasm");
    if !Path::new(&blob).exists() {
        return Err(format!("{} is missing after the build", blob.display()));
    }
    println!("{}", blob.display());
    Ok(())
}

/// Builds the programs, as a command that does nothing else.
fn built(extra: &[&str]) -> Result<Setup, Failure> {
    let mut steps = Steps::new(2);
    let setup = build::ready(&mut steps)?;
    steps.take("build", build::ABOUT, || build::programs(&setup, extra))?;
    Ok(setup)
}

/// Becomes another program; returns only if it cannot be started.
fn become_program(program: &Path, first: &[&str], args: &[String]) -> Result<(), Failure> {
    let error = Command::new(program).args(first).args(args).exec();
    Err(format!("cannot start {}: {error}", program.display()))
}
