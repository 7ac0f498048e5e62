//! Tokenizers: the tokens are those of Hugging Face's Python package, and special tokens in a
//! document are text.

use std::path::{Path, PathBuf};

use dataset::tokenizer::{Tokenizer, TokenizerError};
use serde_json::Value;

/// A file of `tests/fixtures/tokenizers`, which dataset/checks/tokenizer_fixtures.py writes.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(name)
}

fn encodings() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("encodings.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

#[test]
fn tokens_are_those_of_the_python_package() {
    let cases = encodings();
    for name in ["bytes", "pieces"] {
        let tokenizer = Tokenizer::from_file(&fixture(&format!("{name}.json"))).unwrap();
        let texts: Vec<&str> =
            cases["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        assert!(texts.len() > 40);
        let documents = tokenizer.encode_documents(&texts).unwrap();
        for (index, text) in texts.iter().enumerate() {
            let mut expected = ids(&cases[name]["documents"][index]);
            assert_eq!(tokenizer.encode(text).unwrap(), expected, "{name}: {text:?}");
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
    assert!(tokenizer.encode_prompt(forged).unwrap().contains(&end.unwrap()));
    assert_eq!(tokenizer.decode(&tokenizer.encode(forged).unwrap()).unwrap(), forged);
    let pieces = Tokenizer::from_file(&fixture("pieces.json")).unwrap();
    assert_eq!(pieces.end_of_document(), Some(2));
    let other = pieces.with_end_of_document("<s>").unwrap();
    assert_eq!(other.end_of_document(), Some(1));
    assert!(matches!(other.with_end_of_document("<none>"), Err(TokenizerError::NoToken(_))));
}

#[test]
fn bytes_are_tokens_but_for_the_end() {
    let bytes = Tokenizer::bytes();
    assert_eq!((bytes.vocab_size(), bytes.end_of_document()), (256, Some(0)));
    assert_eq!(bytes.encode("a\0ß").unwrap(), [97, 195, 159]);
    assert_eq!(bytes.decode(&[97, 195, 159]).unwrap(), "aß");
    assert!(bytes.decode(&[256]).is_err());
    assert_ne!(bytes.hash(), Tokenizer::from_file(&fixture("bytes.json")).unwrap().hash());
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let json = std::fs::read_to_string(fixture("bytes.json")).unwrap();
    let random = json.replace("\"dropout\":null", "\"dropout\":0.1");
    assert_ne!(random, json);
    assert!(matches!(Tokenizer::from_json(random.as_bytes()), Err(TokenizerError::Dropout)));
    assert!(matches!(
        Tokenizer::from_json(&json.as_bytes()[..json.len() / 2]),
        Err(TokenizerError::Format(_))
    ));
    assert!(matches!(Tokenizer::from_file(Path::new("none.json")), Err(TokenizerError::Io { .. })));
}

/// The byte-level fixture with another pre-tokenizer, and with or without merges of whole words.
fn variant(pre_tokenizer: Value, ignore_merges: bool) -> Tokenizer {
    let text = std::fs::read(fixture("bytes.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    json["pre_tokenizer"] = pre_tokenizer;
    json["model"]["ignore_merges"] = ignore_merges.into();
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

/// The byte-level fixture without tokens for line ends and for some bytes of longer characters.
fn without_bytes() -> Tokenizer {
    let text = std::fs::read(fixture("bytes.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    let missing = ["Ċ", "č", "Ā", "Ń", "ß"];
    let is_missing = |name: &str| missing.iter().any(|byte| name.contains(byte));
    let model = &mut json["model"];
    let vocab = model["vocab"].as_object_mut().unwrap();
    vocab.retain(|name, _| !is_missing(name));
    assert!(vocab.len() < 446);
    let merges = model["merges"].as_array_mut().unwrap();
    merges.retain(|pair| !is_missing(&pair.to_string()));
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

fn byte_level(use_regex: bool) -> Value {
    serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex,
    })
}

fn sequence(first: Value, use_regex: bool) -> Value {
    let steps = [first, byte_level(use_regex)];
    serde_json::json!({ "type": "Sequence", "pretokenizers": steps })
}

fn split(numbers: &str) -> Value {
    let pattern = format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    let pattern = serde_json::json!({ "Regex": pattern });
    serde_json::json!({
        "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false,
    })
}

#[test]
fn our_own_tokenizer_gives_the_tokens_of_the_general_one() {
    let digits = serde_json::json!({ "type": "Digits", "individual_digits": true });
    let tokenizers = [
        variant(byte_level(true), false),
        variant(byte_level(true), true),
        variant(sequence(digits, true), false),
        variant(sequence(split(r"\p{N}{1,3}"), false), true),
        variant(sequence(split(r"\p{N}"), false), false),
        without_bytes(),
        Tokenizer::from_file(&fixture("pieces.json")).unwrap(),
    ];
    let alphabets = [
        "  \t\r\n\u{a0}\u{3000}\u{85}a1.",
        "'sStTrReEvVmMlLdDſ’ ",
        "aé한日0٣½²Ⅷ_-=🦀\u{301}\u{200b} ▁",
        "the and ing min er wind ow  com mit\n",
        "\u{0}\u{7f}\u{80}\u{2028}\u{fffd}\u{10ffff}<|endoftext|>",
    ];
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for round in 0..400 {
        let mut text = String::new();
        let chars: Vec<char> = alphabets[round % alphabets.len()].chars().collect();
        let others: Vec<char> = alphabets[random(alphabets.len())].chars().collect();
        for _ in 0..random(150) {
            let from = if random(5) == 0 { &others } else { &chars };
            text.push(from[random(from.len())]);
        }
        for (index, tokenizer) in tokenizers.iter().enumerate() {
            assert!(tokenizer.is_fast());
            let expected = tokenizer.encode_general(&text).unwrap();
            let found = tokenizer.encode(&text).unwrap();
            assert_eq!(found, expected, "tokenizer {index}: {text:?}");
        }
    }
}

#[test]
fn every_character_is_classed_as_the_general_tokenizer_does() {
    let tokenizers =
        [variant(byte_level(true), false), variant(sequence(split(r"\p{N}{1,3}"), false), false)];
    // Each character between a space, a letter, a number and a sign.
    let all = ('\0'..=char::MAX).step_by(17).collect::<Vec<char>>();
    for chars in all.chunks(512) {
        let text: String = chars
            .iter()
            .flat_map(|char| [*char, ' ', *char, 'a', *char, '1', *char, '.'])
            .collect();
        for tokenizer in &tokenizers {
            let expected = tokenizer.encode_general(&text).unwrap();
            assert!(tokenizer.encode(&text).unwrap() == expected, "{chars:?}");
        }
    }
}

#[test]
fn forms_that_are_not_known_in_every_detail_are_left_to_the_general_tokenizer() {
    let prefixed = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
    });
    let whole_numbers = serde_json::json!({ "type": "Digits", "individual_digits": false });
    let others = [
        prefixed,
        sequence(whole_numbers, true),
        sequence(split(r"\p{N}+"), false),
        serde_json::json!({ "type": "Whitespace" }),
    ];
    for pre_tokenizer in others {
        let tokenizer = variant(pre_tokenizer, false);
        assert!(!tokenizer.is_fast());
        let text = "It's 12 o'clock";
        assert_eq!(tokenizer.encode(text).unwrap(), tokenizer.encode_general(text).unwrap());
    }
    for name in ["lstrip", "rstrip", "single_word", "normalized"] {
        let mut token = serde_json::json!({ "content": "ab", "special": false, "id": 449 });
        for other in ["lstrip", "rstrip", "single_word", "normalized"] {
            token[other] = (name == other).into();
        }
        assert!(!with_added("bytes.json", &[token]).is_fast());
    }
}

/// The tokenizer of a fixture with more added tokens.
fn with_added(name: &str, tokens: &[Value]) -> Tokenizer {
    let mut json: Value = serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    added.extend(tokens.iter().cloned());
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

/// Of several that begin at a place the longest is taken, and what lies within a special one, which
/// is text, is not sought.
#[test]
fn tokens_that_users_added_are_found_before_anything_else() {
    let added = |contents: &[(&str, bool)], first: usize| -> Vec<Value> {
        let token = |(index, (content, special)): (usize, &(&str, bool))| {
            serde_json::json!({
                "id": first + index, "content": content, "special": special, "lstrip": false,
                "rstrip": false, "single_word": false, "normalized": false,
            })
        };
        contents.iter().enumerate().map(token).collect()
    };
    let contents = [
        ("<a>", false),
        ("<a>b", false),
        ("a>", false),
        ("  ", false),
        ("b<", true),
        ("日", false),
        ("<", false),
        ("is", false),
    ];
    for name in ["bytes.json", "pieces.json"] {
        let plain = Tokenizer::from_file(&fixture(name)).unwrap();
        let tokenizer = with_added(name, &added(&contents, plain.vocab_size()));
        assert!(tokenizer.is_fast());
        let mut state = 5u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let pieces = ["<", "a", ">", "b", " ", "日", "本", "this is ", "x"];
        let mut found = 0;
        for _ in 0..500 {
            let text: String = (0..random(40)).map(|_| pieces[random(pieces.len())]).collect();
            let tokens = tokenizer.encode(&text).unwrap();
            assert_eq!(tokens, tokenizer.encode_general(&text).unwrap(), "{text:?}");
            let is_added = |token: &&u32| **token as usize >= plain.vocab_size();
            found += tokens.iter().filter(is_added).count();
        }
        assert!(found > 1_000, "{found}");
    }
}
