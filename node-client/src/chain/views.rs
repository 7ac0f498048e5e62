//! Questions to the pallet's view functions and their answers, in the bytes of the runtime's `RuntimeViewFunction`: the
//! arguments go there, and the answer comes back, as bytes within bytes.

use codec::{Decode, DecodeAll, Encode};

/// The call of the runtime that hands a question to its view function.
pub const CALL: &str = "RuntimeViewFunction_execute_view_function";

/// Why a view function did not answer, in the order of frame-support's `ViewFunctionDispatchError`.
#[derive(Decode, Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the runtime has no view functions")]
    NotImplemented,
    #[error("the runtime has no view function 0x{}", hex::encode(.0))]
    NotFound([u8; 32]),
    #[error("the runtime cannot read the view function's arguments")]
    Codec,
}

/// The question to the view function that the metadata say has this `id`; `arguments` are its arguments' bytes.
pub fn question(id: &[u8; 32], arguments: &[u8]) -> Vec<u8> {
    (id, arguments).encode()
}

/// What a view function answers, out of what the call returns.
///
/// # Errors
/// It did not answer, or answers something else; the text says why.
pub fn answer<T: Decode>(returned: &[u8]) -> Result<T, String> {
    let answer = Result::<Vec<u8>, NoAnswer>::decode_all(&mut &returned[..]);
    let answer = answer.map_err(|error| error.to_string())?;
    let answer = answer.map_err(|refusal| refusal.to_string())?;
    T::decode_all(&mut &answer[..]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bytes_within_bytes_and_anything_else_an_error() {
        let whole = Result::<Vec<u8>, ()>::Ok(7u32.encode()).encode();
        assert_eq!(answer::<u32>(&whole), Ok(7));
        assert!(answer::<u64>(&whole).is_err(), "too short");
        assert!(answer::<u16>(&whole).is_err(), "too long");
        assert!(answer::<u32>(&7u32.encode()).is_err(), "not within bytes");
        assert!(answer::<u32>(&[]).is_err());
        for refusal in [vec![1, 0], [&[1, 1][..], &[7; 32]].concat(), vec![1, 2]] {
            assert!(answer::<u32>(&refusal).unwrap_err().contains("the runtime "));
        }
    }
}
