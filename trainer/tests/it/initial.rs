//! The initial parameters: equal on every machine, so their roots are fixed here.

use trainer::{ArrivingModel, Model, ModelConfig, RopeScaling, Threads, PRESETS};

fn hex(hash: [u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn initial_parameters_of_nano_have_the_golden_root() {
    let config = ModelConfig::preset("nano").unwrap();
    let model = Model::init(&config, 1).unwrap();
    let root = hex(model.state_root(&Threads::single()));
    assert_eq!(root, "5d94870b96f58ad79707c79d2f2fcf2d944991622133ad32c1f8e3bb9a037875");
    let other = Model::init(&config, 2).unwrap();
    assert_ne!(root, hex(other.state_root(&Threads::single())));
}

#[test]
fn every_preset_is_valid_and_counted() {
    let counts = PRESETS.map(|name| {
        let config = ModelConfig::preset(name).unwrap();
        config.validate().unwrap();
        let tensors: u64 = config.tensors().iter().map(|tensor| tensor.len() as u64).sum();
        assert_eq!(tensors, config.parameter_count());
        assert_eq!(config.layout().value_count(), Some(tensors));
        tensors
    });
    // From 135M on, the counts that the published models state.
    assert_eq!(
        counts,
        [
            377_472,
            935_040,
            6_917_376,
            24_845_824,
            134_515_008,
            361_821_120,
            1_235_814_400,
            8_030_261_248,
            70_553_706_496,
            70_599_843_840,
        ]
    );
}

#[test]
fn configurations_from_before_rope_scaling_still_read() {
    let old = r#"{"vocab":256,"hidden":128,"layers":2,"heads":4,"kv_heads":2,"ffn":320,
        "seq_len":128,"rope_theta":10000.0,"norm_epsilon":1e-5,"tied":true}"#;
    let nano = ModelConfig::preset("nano").unwrap();
    assert_eq!(serde_json::from_str::<ModelConfig>(old).unwrap(), nano);
    assert!(!serde_json::to_string(&nano).unwrap().contains("rope_scaling"));
    let large = ModelConfig::preset("8B").unwrap();
    let text = serde_json::to_string(&large).unwrap();
    assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), large);
}

#[test]
fn llama_3_1_turns_as_hugging_face_computes_it() {
    // transformers 5.23, `LlamaRotaryEmbedding(config).inv_freq` of Llama-3.1-8B's config.
    let frequencies = ModelConfig::preset("8B").unwrap().rotary_frequencies();
    for (pair, expected) in [
        (0, 1.0),
        (1, 8.146_172_166e-1),
        (20, 1.656_044_088e-2),
        (28, 3.211_446_106e-3),
        (30, 1.371_893_683e-3),
        (33, 3.126_936_499e-4),
        (36, 7.784_655_463e-5),
        (38, 5.165_906_987e-5),
        (40, 3.428_102_355e-5),
        (63, 3.068_925_878e-7),
    ] {
        let relative = frequencies[pair] / expected - 1.0;
        assert!(relative.abs() < 1e-6, "pair {pair}: {relative:e}");
    }
    let linear = ModelConfig {
        rope_scaling: Some(RopeScaling::Linear { factor: 4.0 }),
        ..ModelConfig::preset("nano").unwrap()
    };
    assert_eq!(linear.rotary_frequencies()[0], 0.25);
}

#[test]
fn tensors_are_named_as_by_hugging_face_and_sorted() {
    let config = ModelConfig::preset("7M").unwrap();
    let names: Vec<String> = config.tensors().into_iter().map(|tensor| tensor.name).collect();
    assert!(names.is_sorted());
    assert_eq!(names[0], "lm_head.weight");
    assert_eq!(names[1], "model.embed_tokens.weight");
    assert_eq!(names[2], "model.layers.0.input_layernorm.weight");
    assert_eq!(names[6], "model.layers.0.post_attention_layernorm.weight");
    assert_eq!(names.last().unwrap(), "model.norm.weight");
    assert_eq!(names.len(), 6 * 9 + 3);
}

#[test]
fn parameters_survive_the_way_through_bytes() {
    let config = ModelConfig::preset("nano").unwrap();
    let model = Model::init(&config, 3).unwrap();
    let bytes = model.to_bytes();
    let again = Model::from_bytes(&config, &bytes).unwrap();
    assert_eq!(again.parameters(), model.parameters());
    assert!(Model::from_bytes(&config, &bytes[1..]).is_err());
    let mut spoiled = bytes;
    spoiled[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(Model::from_bytes(&config, &spoiled).is_err());
}

#[test]
fn initial_parameters_do_not_depend_on_threads() {
    // Longer than a task's part of a tensor, and not a multiple of it.
    let config = ModelConfig { vocab: 2_304, ..ModelConfig::preset("nano").unwrap() };
    let alone = Model::init(&config, 5).unwrap();
    for count in [2, 3] {
        let several = Model::init_on(&Threads::new(count).unwrap(), &config, 5).unwrap();
        assert_eq!(several.parameters(), alone.parameters());
    }
}

#[test]
fn any_part_of_the_bytes_is_read_without_the_rest() {
    let model = Model::init(&ModelConfig::preset("nano").unwrap(), 3).unwrap();
    let bytes = model.to_bytes();
    assert_eq!(model.byte_len(), bytes.len() as u64);
    let first = model.tensor(0).len() * 4;
    for (offset, len) in [
        (0, 1),
        (1, 2),
        (3, 9),
        (first - 5, 11),
        (first - 2, 2_000_000),
        (bytes.len() - 3, 8),
        (bytes.len(), 4),
        (0, bytes.len()),
    ] {
        let mut part = vec![0; len];
        let count = model.read_bytes(offset as u64, &mut part);
        let end = bytes.len().min(offset + len);
        assert_eq!(part[..count], bytes[offset..end], "{offset} {len}");
    }
}

#[test]
fn parameters_arrive_piece_by_piece_and_wrong_ones_are_asked_for_again() {
    let config = ModelConfig { vocab: 2_304, ..ModelConfig::preset("nano").unwrap() };
    let model = Model::init(&config, 3).unwrap();
    let threads = Threads::new(2).unwrap();
    let manifest = model.state_manifest(&threads);
    let other = ModelConfig { ffn: 96, ..config.clone() };
    assert!(ArrivingModel::new(&other, manifest.clone()).is_err());
    let arriving = ArrivingModel::new(&config, manifest).unwrap();
    assert_eq!(arriving.byte_len(), model.byte_len());
    let count = arriving.piece_count();
    let bytes = |index| {
        let (offset, len, _) = arriving.piece(index).unwrap();
        let mut bytes = vec![0; len as usize];
        assert_eq!(model.read_bytes(offset, &mut bytes), len as usize);
        bytes
    };
    let mut wrong = bytes(1);
    wrong[7] ^= 1;
    for bad in [&wrong[..], &wrong[1..], &[]] {
        assert!(!arriving.accept(1, bad));
    }
    assert!(!arriving.accept(count, &[]));
    // In any order, from several threads, some of them twice.
    threads.for_each(2 * count, |index| {
        let index = count - 1 - index % count;
        while !arriving.accept(index, &bytes(index)) {}
    });
    assert_eq!((arriving.missing(), arriving.piece(0).unwrap().2), (0, true));
    assert_eq!(arriving.finish().unwrap().parameters(), model.parameters());

    let unfinished = ArrivingModel::new(&config, model.state_manifest(&threads)).unwrap();
    assert!(unfinished.finish().is_none());
}

#[test]
fn root_does_not_depend_on_threads() {
    let config = ModelConfig::preset("1M").unwrap();
    let model = Model::init(&config, 4).unwrap();
    assert_eq!(model.state_root(&Threads::single()), model.state_root(&Threads::new(3).unwrap()));
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let good = ModelConfig::preset("nano").unwrap();
    let mut broken = Vec::new();
    broken.push(ModelConfig { hidden: 0, ..good.clone() });
    broken.push(ModelConfig { hidden: 100, ..good.clone() });
    broken.push(ModelConfig { kv_heads: 3, ..good.clone() });
    broken.push(ModelConfig { vocab: 100, ..good.clone() });
    broken.push(ModelConfig { layers: 500, ..good.clone() });
    broken.push(ModelConfig { seq_len: usize::MAX, ..good.clone() });
    broken.push(ModelConfig { rope_theta: f32::NAN, ..good.clone() });
    broken.push(ModelConfig {
        rope_scaling: Some(RopeScaling::Linear { factor: 0.5 }),
        ..good.clone()
    });
    broken.push(ModelConfig { vocab: 1 << 24, hidden: 1 << 24, ..good.clone() });
    for config in broken {
        assert!(Model::init(&config, 0).is_err(), "{config:?}");
    }
}
