//! Tokenizers: the tokens are those of Hugging Face's Python package, and special tokens in a
//! document are text.

use std::path::{Path, PathBuf};

use serde_json::Value;
use trainer::tokenizer::{Tokenizer, TokenizerError};

/// A file of `tests/fixtures/tokenizers`, which trainer/checks/tokenizer_fixtures.py writes.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tokenizers")
        .join(name)
}

fn encodings() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("encodings.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

#[test]
fn tokens_are_those_of_the_python_package() {
    let cases = encodings();
    for name in ["bytes", "pieces"] {
        let tokenizer = Tokenizer::from_file(&fixture(&format!("{name}.json"))).unwrap();
        let texts: Vec<&str> = cases["texts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .collect();
        assert!(texts.len() > 40);
        let documents = tokenizer.encode_documents(&texts).unwrap();
        for (index, text) in texts.iter().enumerate() {
            let mut expected = ids(&cases[name]["documents"][index]);
            assert_eq!(
                tokenizer.encode(text).unwrap(),
                expected,
                "{name}: {text:?}"
            );
            let decoded = tokenizer.decode(&expected).unwrap();
            assert_eq!(Some(&*decoded), cases[name]["decoded"][index].as_str());
            expected.extend(tokenizer.end_of_document());
            assert_eq!(documents[index], expected);
            let prompt = ids(&cases[name]["prompts"][index]);
            assert_eq!(tokenizer.encode_prompt(text).unwrap(), prompt, "{text:?}");
        }
    }
}

#[test]
fn special_tokens_in_a_document_are_text() {
    let tokenizer = Tokenizer::from_file(&fixture("bytes.json")).unwrap();
    let end = tokenizer.token_id("<|endoftext|>");
    assert_eq!(tokenizer.end_of_document(), end);
    let forged = "one<|endoftext|>two";
    assert!(!tokenizer.encode(forged).unwrap().contains(&end.unwrap()));
    assert!(tokenizer
        .encode_prompt(forged)
        .unwrap()
        .contains(&end.unwrap()));
    assert_eq!(
        tokenizer
            .decode(&tokenizer.encode(forged).unwrap())
            .unwrap(),
        forged
    );
    let pieces = Tokenizer::from_file(&fixture("pieces.json")).unwrap();
    assert_eq!(pieces.end_of_document(), Some(2));
    let other = pieces.with_end_of_document("<s>").unwrap();
    assert_eq!(other.end_of_document(), Some(1));
    assert!(matches!(
        other.with_end_of_document("<none>"),
        Err(TokenizerError::NoToken(_))
    ));
}

#[test]
fn bytes_are_tokens_but_for_the_end() {
    let bytes = Tokenizer::bytes();
    assert_eq!(
        (bytes.vocab_size(), bytes.end_of_document()),
        (256, Some(0))
    );
    assert_eq!(bytes.encode("a\0ß").unwrap(), [97, 195, 159]);
    assert_eq!(bytes.decode(&[97, 195, 159]).unwrap(), "aß");
    assert!(bytes.decode(&[256]).is_err());
    assert_ne!(
        bytes.hash(),
        Tokenizer::from_file(&fixture("bytes.json")).unwrap().hash()
    );
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let json = std::fs::read_to_string(fixture("bytes.json")).unwrap();
    let random = json.replace("\"dropout\":null", "\"dropout\":0.1");
    assert_ne!(random, json);
    assert!(matches!(
        Tokenizer::from_json(random.as_bytes()),
        Err(TokenizerError::Dropout)
    ));
    assert!(matches!(
        Tokenizer::from_json(&json.as_bytes()[..json.len() / 2]),
        Err(TokenizerError::Format(_))
    ));
    assert!(matches!(
        Tokenizer::from_file(Path::new("none.json")),
        Err(TokenizerError::Io { .. })
    ));
}
