//! The initial parameters: equal on every machine, so their roots are fixed here.

use trainer::{Model, ModelConfig, Threads, PRESETS};

fn hex(hash: [u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn initial_parameters_of_nano_have_the_golden_root() {
    let config = ModelConfig::preset("nano").unwrap();
    let model = Model::init(&config, 1).unwrap();
    let root = hex(model.state_root(&Threads::single()));
    assert_eq!(
        root,
        "5d94870b96f58ad79707c79d2f2fcf2d944991622133ad32c1f8e3bb9a037875"
    );
    let other = Model::init(&config, 2).unwrap();
    assert_ne!(root, hex(other.state_root(&Threads::single())));
}

#[test]
fn every_preset_is_valid_and_counted() {
    let counts = PRESETS.map(|name| {
        let config = ModelConfig::preset(name).unwrap();
        config.validate().unwrap();
        let tensors: u64 = config
            .tensors()
            .iter()
            .map(|tensor| tensor.len() as u64)
            .sum();
        assert_eq!(tensors, config.parameter_count());
        assert_eq!(config.layout().value_count(), Some(tensors));
        tensors
    });
    assert_eq!(counts, [377_472, 935_040, 6_917_376, 24_845_824]);
}

#[test]
fn tensors_are_named_as_by_hugging_face_and_sorted() {
    let config = ModelConfig::preset("7M").unwrap();
    let names: Vec<String> = config
        .tensors()
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
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
fn root_does_not_depend_on_threads() {
    let config = ModelConfig::preset("1M").unwrap();
    let model = Model::init(&config, 4).unwrap();
    assert_eq!(
        model.state_root(&Threads::single()),
        model.state_root(&Threads::new(3).unwrap())
    );
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let good = ModelConfig::preset("nano").unwrap();
    let mut broken = Vec::new();
    broken.push(ModelConfig {
        hidden: 0,
        ..good.clone()
    });
    broken.push(ModelConfig {
        hidden: 100,
        ..good.clone()
    });
    broken.push(ModelConfig {
        kv_heads: 3,
        ..good.clone()
    });
    broken.push(ModelConfig {
        vocab: 100,
        ..good.clone()
    });
    broken.push(ModelConfig {
        layers: 500,
        ..good.clone()
    });
    broken.push(ModelConfig {
        seq_len: usize::MAX,
        ..good.clone()
    });
    broken.push(ModelConfig {
        rope_theta: f32::NAN,
        ..good
    });
    for config in broken {
        assert!(Model::init(&config, 0).is_err(), "{config:?}");
    }
}
