//! Budgets against what is known of machines, and against real updates. What a trainer really
//! allocates is in `tests/memory.rs`.

use trainer::budget::{
    advice, hardware, micro_batch_that_fits, plan, Budget, BudgetError, Choice, CpuCosts, CpuRates,
    Devices, Machine, ModelCounts, PlanRequest, Recompute, Sharding, StateFormat, WindowShape,
};
use trainer::compress::{TensorPart, UpdateStream};
use trainer::cuda::fit;
use trainer::cuda::layout::Layout;
use trainer::cuda::plan::{Plan, Work};
use trainer::{Model, ModelConfig, Precision, Threads};

fn machine(gpus: &str) -> Machine {
    Machine {
        devices: hardware::parse_gpus(gpus).unwrap(),
        host_memory: 2_000_000_000_000,
        host_threads: 64,
        disk: None,
        up: 110e6,
        down: 500e6,
    }
}

fn request(preset: &str, seq_len: usize, gpus: &str) -> PlanRequest {
    let mut model = ModelConfig::preset(preset).unwrap();
    model.seq_len = seq_len;
    PlanRequest {
        model,
        machine: machine(gpus),
        window: WindowShape::default(),
        choice: Choice::default(),
    }
}

fn fixed(mut request: PlanRequest, micro_batch: u64, recompute: Recompute) -> Budget {
    request.choice.micro_batch = Some(micro_batch);
    request.choice.recompute = Some(recompute);
    plan(&request).unwrap()
}

fn check(name: &str, value: f64, expected: std::ops::Range<f64>) {
    assert!(expected.contains(&value), "{name}: {value}");
}

fn gpu_bytes(budget: &Budget) -> f64 {
    budget.ledgers[0].bytes as f64
}

#[test]
fn eight_billion_fit_an_h200_with_norms_recomputed_and_not_without() {
    let request = request("8B", 4096, "H200");
    let selective = fixed(request.clone(), 3, Recompute::NormSwiglu);
    assert!(selective.fits, "{:#?}", selective.ledgers);
    let ledger = &selective.ledgers[0];
    let regions = [
        "parameters (bf16)",
        "rest of the f32 master",
        "first moment",
        "second moment",
        "gradient",
    ];
    let state: u64 = regions.iter().map(|name| ledger.bytes_of(name)).sum();
    assert_eq!(state, 12 * selective.model.parameters);
    check("state", state as f64, 96.3e9..96.5e9);
    let kept = ledger.bytes_of("activations of the layers") + ledger.bytes_of("residual stream");
    check("activations a token", kept as f64 / 12_288.0, 3.01e6..3.03e6);
    check("all", gpu_bytes(&selective), 140e9..144e9);

    let nothing = fixed(request, 3, Recompute::None);
    assert!(!nothing.fits);
}

#[test]
fn a_token_of_eight_billion_takes_about_87_microseconds_of_an_h200() {
    let budget = fixed(request("8B", 4096, "H200"), 3, Recompute::NormSwiglu);
    check("µs", 1e6 / budget.step.tokens_per_second, 75.0..95.0);
    check("MFU", budget.step.mfu, 0.50..0.70);
    let full = fixed(request("8B", 4096, "H200"), 3, Recompute::Full);
    check("full / selective", full.step.seconds / budget.step.seconds, 1.2..1.35);
}

#[test]
fn the_engines_formats_take_what_the_engine_allocates() {
    let alone = ("8B", 4096, "H200", Recompute::NormSwiglu, 1);
    let spread = ("covenant-72b", 2048, "8xH200", Recompute::Full, 2);
    for (preset, seq_len, gpus, recompute, micro) in [alone, spread] {
        for (state, muon) in [
            (StateFormat::Bytes12, false),
            (StateFormat::Bytes12, true),
            (StateFormat::Bytes6, false),
        ] {
            let mut request = request(preset, seq_len, gpus);
            (request.choice.state, request.choice.muon) = (state, muon);
            request.choice.sharding = Some(Sharding::Full);
            let budget = fixed(request.clone(), micro, recompute);
            let world = request.machine.devices.count();
            let layout = Layout::new(&request.model, world as usize);
            let offload = state == StateFormat::Bytes6;
            let samples = micro as usize;
            let work = Work { samples, training: true, recompute, muon, offload, changes: false };
            let plan = Plan::new(&request.model, &layout, work);
            let ledger = &budget.ledgers[0];
            for (region, bytes) in plan.regions() {
                assert_eq!(ledger.bytes_of(region.name()), bytes, "{preset}, {}", region.name());
            }
            assert_eq!(ledger.bytes, plan.bytes() + fit::beside(world as usize));
            let host = budget.ledger("memory of each host").unwrap();
            let pinned = host.bytes_of("master and averages (pinned)");
            assert_eq!(pinned, plan.pinned * world);
            println!("{preset} {gpus} {state:?} Muon {muon}: {ledger:#?} {host:#?}");
        }
    }
}

#[test]
fn seventy_two_billion_fit_eight_h100_with_states_on_the_host() {
    let mut request = request("covenant-72b", 2048, "8xH100-80");
    assert!(!fixed(request.clone(), 1, Recompute::Full).fits);
    request.choice.state = StateFormat::Bytes6;
    let budget = fixed(request.clone(), 1, Recompute::Full);
    assert!(budget.fits, "{:#?}", budget.ledgers);
    let host = budget.ledger("memory of each host").unwrap();
    let pinned = host.bytes_of("master and averages (pinned)") as f64;
    check("pinned", pinned, 423e9..425e9);
    // And of a step it takes about two seconds.
    let optimiser = budget.step.times.iter().find(|time| time.name == "optimiser").unwrap();
    check("optimiser", optimiser.seconds, 2.0..2.5);
}

#[test]
fn seventy_two_billion_fit_eight_h200_checkpointed_and_not_eight_small_a100() {
    let budget = fixed(request("covenant-72b", 2048, "8xH200"), 2, Recompute::Full);
    assert!(budget.fits, "{:#?}", budget.ledgers);
    assert_eq!(budget.model.parameters, 70_599_843_840);
    assert_eq!(budget.step.sharding, Sharding::Full);
    check("GPU", gpu_bytes(&budget), 130e9..138e9);
    let host = budget.ledger("memory of each host").unwrap();
    let states = ["parameters (agreed)", "error feedback"];
    let states: u64 = states.iter().map(|name| host.bytes_of(name)).sum();
    check("host", states as f64, 564e9..566e9);
    // 11.8 M tokens: 24.5 minutes at 45 % MFU, less at the roofline.
    check("round, minutes", budget.phases[0].seconds / 60.0, 17.0..26.0);

    let small = plan(&request("covenant-72b", 2048, "8xA100-40")).unwrap();
    assert!(!small.fits);
}

#[test]
fn megabytes_a_second_explain_covenants_seventy_seconds_and_megabits_do_not() {
    let exchange = |up: f64, down: f64| {
        let mut request = request("covenant-72b", 2048, "8xB200");
        (request.machine.up, request.machine.down) = (up, down);
        let budget = plan(&request).unwrap();
        let phases = budget.phases.iter();
        let phases = phases.filter(|phase| phase.name.contains("update") && phase.seconds > 5.0);
        phases.map(|phase| phase.seconds).sum::<f64>()
    };
    check("MB/s", exchange(880e6, 4000e6), 50.0..80.0);
    check("Mb/s", exchange(110e6, 500e6), 450.0..600.0);
}

#[test]
fn an_update_has_the_size_that_is_planned() {
    let config = ModelConfig::preset("1M").unwrap();
    let threads = Threads::new(2).unwrap();
    for keep in [32, 64, 128, 1024] {
        let counts = ModelCounts::new(&config, keep).unwrap();
        // What is encoded is near normal noise: the initial parameters.
        let model = Model::init(&config, 7).unwrap();
        let noise = model.parameters();
        let zeros = vec![0.0; noise.len()];
        let mut feedback = zeros.clone();
        let (arena, layout) = (model.arena(), model.layout());
        let sink = std::io::Cursor::new(Vec::new());
        let mut stream = UpdateStream::new(&threads, sink, layout, keep, 1.0).unwrap();
        let window = arena.views(noise).into_iter().zip(arena.views(&zeros));
        for ((start, local), feedback) in window.zip(arena.views_mut(&mut feedback)) {
            stream.encode([TensorPart { feedback, start, local }]).unwrap();
        }
        let update = stream.finish().unwrap().into_inner();
        let ratio = update.len() as f64 / counts.payload_bytes as f64;
        check("real / planned", ratio, 0.99..1.01);
        assert!(update.len() as u64 <= counts.payload_bytes_max);
    }
    let counts = |preset| ModelCounts::new(&ModelConfig::preset(preset).unwrap(), 64).unwrap();
    let covenant = counts("covenant-72b");
    check("covenant, bytes", covenant.payload_bytes as f64, 1.35e9..1.39e9);
    check("covenant, bits", covenant.bits_per_value, 9.5..10.0);
    check("covenant, ratio", covenant.ratio, 200.0..210.0);
}

#[test]
fn muon_saves_a_moment_of_the_layers_matrices_and_takes_products() {
    let mut request = request("8B", 4096, "8xH200");
    request.choice.sharding = Some(Sharding::None);
    let adamw = fixed(request.clone(), 3, Recompute::Full);
    request.choice.muon = true;
    let muon = fixed(request.clone(), 3, Recompute::Full);
    let config = &request.model;
    let matrices = config.arena().layer_matrix_len() as u64;
    let parameters = config.parameter_count();
    check("part of the parameters", matrices as f64 / parameters as f64, 0.8..0.9);
    let of = |budget: &Budget, name| budget.ledgers[0].bytes_of(name);
    assert_eq!(of(&adamw, "second moment"), 2 * parameters);
    assert_eq!(of(&muon, "second moment"), 2 * (parameters - matrices));
    assert_eq!(of(&muon, "first moment"), of(&adamw, "first moment"));
    // Gate, up and down are the largest: 14,336 by 4,096.
    let works_on = of(&muon, "matrices that Muon works on");
    assert_eq!(works_on, 2 * 2 * (14_336 * 4_096 + 4_096 * 4_096));
    let saved = gpu_bytes(&adamw) - gpu_bytes(&muon);
    assert_eq!(saved as u64, 2 * matrices - works_on);
    let disk = |budget: &Budget| budget.ledger("disk").unwrap().bytes;
    assert_eq!(disk(&adamw) - disk(&muon), 3 * 2 * matrices);

    // r (3.3 + 1.7 r / c) / T of the products of the same matrices.
    let optimiser = |budget: &Budget| {
        let times = budget.step.times.iter();
        times.filter(|time| time.name == "optimiser").map(|time| time.seconds).sum::<f64>()
    };
    let more = optimiser(&muon) - optimiser(&adamw);
    let tokens = (request.window.batch * 4_096) as f64;
    let gradient = 6.0 * matrices as f64 * tokens / (989e12 * 0.78);
    // q and o of 4,096²; k and v of 1,024 · 4,096; gate, up and down.
    let (square, narrow, wide) = (2.0 * 16.8e6, 2.0 * 4.19e6, 3.0 * 58.7e6);
    let part = |r: f64, c: f64| r * (3.3333 + 1.6667 * r / c) / tokens;
    let expected = (square * part(4_096.0, 4_096.0)
        + narrow * part(1_024.0, 4_096.0)
        + wide * part(4_096.0, 14_336.0))
        / (square + narrow + wide);
    check("Muon's over the gradient's", more / gradient / expected, 0.98..1.02);
    request.choice.sharding = Some(Sharding::Optimiser);
    let spread = fixed(request.clone(), 3, Recompute::Full);
    check("on eight", optimiser(&muon) / optimiser(&spread), 7.99..8.01);

    request.machine.devices = Devices::Cpu(CpuRates::assumed(2));
    let muon = fixed(request.clone(), 1, Recompute::None);
    request.choice.muon = false;
    let adamw = fixed(request, 1, Recompute::None);
    let of = |budget: &Budget, name| budget.ledgers[0].bytes_of(name);
    assert_eq!(of(&adamw, "second moment") - of(&muon, "second moment"), 4 * matrices);
    assert!(of(&muon, "matrices that Muon works on") > 2 * 4 * 2 * 14_336 * 4_096);
    assert!(optimiser(&muon) > 2.0 * optimiser(&adamw));
}

#[test]
fn what_does_not_fit_is_told_what_would_and_every_word_is_true() {
    let mut request = request("covenant-72b", 2048, "8xA100-40");
    request.machine.host_memory = 400_000_000_000;
    let budget = plan(&request).unwrap();
    let found = advice::advice(&request, &budget).unwrap();
    assert!(!found.is_empty());
    assert!(found.iter().all(|advice| advice.fits), "{found:#?}");
    let names: Vec<_> = found.iter().map(|advice| advice.change.as_str()).collect();
    assert!(names.iter().any(|name| name.contains("xA100-40")), "{names:?}");
    // As proposed, by hand: enough GPUs of the same kind bring hosts enough.
    let count = found.iter().find_map(|advice| advice.change.split_once("xA100-40"));
    let (count, _) = count.unwrap();
    request.machine.devices = hardware::parse_gpus(&format!("{count}xA100-40")).unwrap();
    request.machine.host_memory = 2_000_000_000_000;
    assert!(plan(&request).unwrap().fits);
}

#[test]
fn a_cpu_gets_the_largest_micro_batch_and_advice() {
    let mut request = request("25M", 512, "H200");
    request.window.batch = 8;
    request.machine.devices = Devices::Cpu(CpuRates::assumed(2));
    request.machine.host_memory = 24_000_000_000;
    let budget = plan(&request).unwrap();
    assert!(budget.fits);
    assert_eq!(budget.step.micro_batch, 8);
    request.machine.host_memory = 1_140_000_000;
    let budget = plan(&request).unwrap();
    let config = &request.model;
    let updates = budget.ledgers[0].bytes_of("accepted updates");
    let micro = micro_batch_that_fits(8, 1_140_000_000, |samples| {
        CpuCosts::of_trainer(config, samples, 2)?.and_replica(config, updates)
    });
    assert_eq!(micro.map(|micro| micro as u64), Ok(budget.step.micro_batch));
    assert!((2..8).contains(&budget.step.micro_batch));
    request.machine.host_memory = 200_000_000;
    let budget = plan(&request).unwrap();
    assert!(!budget.fits);
    let found = advice::advice(&request, &budget).unwrap();
    assert!(found.len() >= 2, "{found:?}");
}

/// A replica holds one θ, a validator two, and neither anything of that size beside.
#[test]
fn who_does_not_train_holds_the_agreed_parameters_once_or_twice() {
    for (model, gpus) in [("25M", "H200"), ("8B", "H200"), ("covenant-72b", "8xH200")] {
        let budget = plan(&request(model, 2048, gpus)).unwrap();
        let theta = 4 * budget.model.parameters;
        let held = ["replica", "validator"].map(|role| {
            let account = budget.others.iter().find(|account| account.name.contains(role));
            let account = account.unwrap();
            account.bytes - account.bytes_of("accepted updates")
        });
        for (held, copies) in held.into_iter().zip([1, 2]) {
            let beside = held - copies * theta;
            // An update's values, a 64th; buffers of 32 MiB; hashes.
            let most = (copies - 1) * theta / 64 + theta / 1_000 + (34 << 20);
            assert!(beside <= most, "{model}: {beside} beside {copies} copies, {most} at most");
        }
        let disk = budget.ledger("disk").unwrap();
        assert_eq!(disk.bytes_of("agreed states (3 and 1 being written)"), 4 * theta);
    }
}

#[test]
fn the_micro_batch_is_the_largest_that_fits() {
    let config = ModelConfig::preset("1M").unwrap();
    let costs = |samples| CpuCosts::of_pretrainer(&config, samples, Precision::F32, 2);
    let bytes = |samples| costs(samples).unwrap().bytes().unwrap();
    let fits = |memory| micro_batch_that_fits(12, memory, costs);
    assert_eq!(fits(u64::MAX), Ok(12));
    assert_eq!(fits(bytes(6)), Ok(6));
    assert_eq!(fits(bytes(6) - 1), Ok(4));
    let rounded = micro_batch_that_fits(12, bytes(6), |samples| {
        CpuCosts::of_pretrainer(&config, samples, Precision::Bf16, 2)
    });
    assert_eq!(rounded, Ok(4), "rounded parameters take memory of their own");
    let (needed, available) = (bytes(1), bytes(1) - 1);
    let none = Err(BudgetError::Memory { needed, available });
    assert_eq!(fits(available), none);
}

#[test]
fn absurd_requests_are_errors() {
    let mut absurd = request("nano", 128, "H200");
    absurd.model.vocab = 1 << 24;
    absurd.model.hidden = 1 << 23;
    absurd.model.ffn = 1 << 24;
    absurd.model.seq_len = 1 << 24;
    absurd.window.batch = 1 << 24;
    assert!(matches!(plan(&absurd), Err(BudgetError::Config(_))));

    // Of this batch not all samples can be counted at once, but one can.
    let mut long = request("covenant-72b", 1 << 24, "H200");
    long.window.batch = 1 << 24;
    for cpu in [false, true] {
        if cpu {
            long.machine.devices = Devices::Cpu(CpuRates::assumed(2));
        }
        long.choice.micro_batch = None;
        assert!(plan(&long).is_ok_and(|budget| !budget.fits));
        long.choice.micro_batch = Some(1 << 24);
        assert!(matches!(plan(&long), Err(BudgetError::TooLarge(_))));
    }

    let good = request("nano", 128, "H200");
    let changes: [fn(&mut PlanRequest); 7] = [
        |request| request.window.batch = 0,
        |request| request.window.batch = u64::MAX,
        |request| request.window.peers = 0,
        |request| request.window.keep = 0,
        |request| request.machine.up = 0.0,
        |request| request.choice.micro_batch = Some(0),
        |request| request.choice.mfu = Some(f64::NAN),
    ];
    for change in changes {
        let mut wrong = good.clone();
        change(&mut wrong);
        assert!(plan(&wrong).is_err(), "{:?}", wrong.window);
    }
    assert!(plan(&good).unwrap().fits);
}

#[test]
fn a_known_mfu_replaces_the_roofline() {
    // 20 minutes for 11.8 M tokens on eight B200: what Covenant-72B reports, 23 % of the peak.
    let mut request = request("covenant-72b", 2048, "8xB200");
    request.choice.mfu = Some(0.23);
    let budget = plan(&request).unwrap();
    check("MFU", budget.step.mfu, 0.2299..0.2301);
    check("minutes", budget.phases[0].seconds / 60.0, 19.0..21.0);
    let parts: f64 = budget.step.times.iter().map(|time| time.seconds).sum();
    check("parts", parts / budget.step.seconds, 0.999..1.001);
}

#[test]
fn each_format_takes_its_bytes() {
    for state in StateFormat::ALL {
        let mut request = request("8B", 4096, "8xB200");
        request.choice.state = state;
        request.choice.sharding = Some(Sharding::Full);
        let budget = plan(&request).unwrap();
        let states = [
            "parameters (bf16)",
            "rest of the f32 master",
            "first moment",
            "second moment",
            "gradient",
        ];
        let bytes: u64 = states.iter().map(|name| budget.ledgers[0].bytes_of(name)).sum();
        let per_parameter = bytes as f64 * 8.0 / budget.model.parameters as f64;
        let named = state.bytes() as f64;
        check("bytes a parameter", per_parameter, named - 2.1..named + 0.1);
    }
}
