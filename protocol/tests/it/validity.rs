//! The norm that makes an update invalid, at its bound and beyond.

use protocol::{
    layout::Layout,
    update::{chunk_values, decode_chunk, Encoder, Payload},
    validity::{check_norm, ValidityError, NORM_FACTOR_MAX},
};

/// Keeps every value of a chunk.
const KEEP: u16 = 4096;

/// Two tensors of four values each; an update of `value` everywhere.
fn update(value: f32) -> (Vec<u8>, Layout) {
    let layout = Layout(vec![4, 4]);
    let mut tensors = [[value; 4]; 2];
    let [first, second] = &mut tensors;
    let bytes = Encoder::new().encode(&mut [first, second], &layout, KEEP).unwrap();
    (bytes, layout)
}

/// What [`check_norm`] says of an update of `value` everywhere and these parameters.
fn check(value: f32, parameters: [f32; 8]) -> Result<(), ValidityError> {
    let (bytes, layout) = update(value);
    let payload = Payload::parse(&bytes, &layout, KEEP).unwrap();
    for index in 0..2 {
        // All magnitudes are one scale, which bf16 has: the norms below are exact.
        let chunk = decode_chunk(payload.chunk(index).unwrap(), 4, KEEP).unwrap();
        assert!(chunk_values(&chunk).all(|(_, decoded)| decoded == value));
    }
    check_norm(&payload, &layout, parameters)
}

#[test]
fn an_update_of_four_times_the_models_norm_is_valid() {
    assert_eq!(NORM_FACTOR_MAX, 4.0);
    assert_eq!(check(8.0, [2.0; 8]), Ok(()));
    assert_eq!(check(-8.0, [-2.0; 8]), Ok(()));
    assert_eq!(check(0.0, [0.0; 8]), Ok(()), "nothing is four times nothing");
}

#[test]
fn an_update_just_above_the_bound_is_not() {
    let mut parameters = [2.0f32; 8];
    parameters[7] = parameters[7].next_down();
    let error = check(8.0, parameters).unwrap_err();
    let ValidityError::Norm { norm, model_norm } = error else { panic!("{error}") };
    assert_eq!(norm, 512f64.sqrt());
    assert!(NORM_FACTOR_MAX * model_norm < norm);
    assert!(check(8.0, [0.0; 8]).is_err(), "a model of zeros bounds every update to zero");
}

#[test]
fn a_norm_that_is_not_a_number_is_not_valid() {
    let mut parameters = [2.0; 8];
    parameters[3] = f32::NAN;
    let error = check(8.0, parameters).unwrap_err();
    assert!(matches!(error, ValidityError::Norm { model_norm, .. } if model_norm.is_nan()));
    let error = check(0.0, parameters).unwrap_err();
    assert!(matches!(error, ValidityError::Norm { norm: 0.0, .. }), "not even an update of zeros");
}

#[test]
fn a_payload_without_one_of_the_tensors_is_not_valid() {
    let (bytes, layout) = update(1.0);
    let payload = Payload::parse(&bytes, &layout, KEEP).unwrap();
    let larger = Layout(vec![4, 4, 4]);
    assert_eq!(check_norm(&payload, &larger, [1.0; 12]), Err(ValidityError::Tensor(2)));
}
